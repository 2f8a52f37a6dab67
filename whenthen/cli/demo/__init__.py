"""`whenthen demo`: a real project end to end, in a temporary folder, told as a story.

`project/` holds its rules as anybody would write them, `requests` what the outside sends, `receiver` what stands in for the
outside on the other end, `stage` starts and stops the server, and `story` says what must have been seen.
"""

from whenthen.cli.demo.command import add_commands

__all__ = ["add_commands"]
