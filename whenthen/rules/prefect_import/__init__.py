"""Rules and events of Prefect in our words: `whenthen import prefect` and `whenthen replay --format prefect`."""

from whenthen.rules.prefect_import.importer import ImportResult, import_prefect, import_prefect_file
from whenthen.rules.prefect_import.prefect_events import prefect_event

__all__ = ["ImportResult", "import_prefect", "import_prefect_file", "prefect_event"]
