"""Rules and events of Prefect in our words: `whenthen import prefect` and `whenthen replay --format prefect`."""

from whenthen.rules.prefect_import.flow_names import flow_names_below, function_name
from whenthen.rules.prefect_import.import_score import ImportScore, score_folder
from whenthen.rules.prefect_import.importer import ImportResult, Runs, import_prefect, import_prefect_file
from whenthen.rules.prefect_import.known_ids import read_ids
from whenthen.rules.prefect_import.prefect_events import prefect_event

__all__ = [
    "ImportResult",
    "ImportScore",
    "Runs",
    "flow_names_below",
    "function_name",
    "import_prefect",
    "import_prefect_file",
    "prefect_event",
    "read_ids",
    "score_folder",
]
