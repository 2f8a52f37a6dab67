"""How does what a source reads become events: a message of a broker, a file that changed, an answer that was asked for?"""

from __future__ import annotations

from whenthen.sources.readings.folder_changes import FileChange, FileMark, FolderMemory
from whenthen.sources.readings.source_messages import SourceMessage, SourceTranslator

__all__ = ["FileChange", "FileMark", "FolderMemory", "SourceMessage", "SourceTranslator"]
