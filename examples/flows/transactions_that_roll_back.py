"""Steps that are all done or all undone: `transaction`, `on_rollback`, `on_commit`.

python transactions_that_roll_back.py
"""

import tempfile
from pathlib import Path

from whenthen import flow, task
from whenthen.transactions import transaction


@task
def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@write.on_rollback
def remove(txn):
    """The keys that the transaction kept say what is to be undone."""
    for path in txn.get("written", []):
        path.unlink(missing_ok=True)
        print("undone:", path.name)


@write.on_commit
def announce(txn):
    print("kept")


@task
def check(path: Path, most: int) -> None:
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path.name} has {size} bytes, the most are {most}")


@flow
def publish(folder: Path, text: str) -> list[str]:
    with transaction() as txn:
        txn.set("written", [folder / "page.html"])
        page = write(folder, "page.html", text)
        check(page, most=20)
    return sorted(path.name for path in folder.iterdir())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(publish(folder, "short"))
        state = publish(folder, "much too long for a page", return_state=True)
        print(state.name, "-", sorted(path.name for path in Path(folder).iterdir()))
