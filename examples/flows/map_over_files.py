"""A task for each file, with the files known only when the flow runs: `.map`, futures, partial failure, a table as an artifact.

python map_over_files.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

from whenthen import flow, task, unmapped
from whenthen.artifacts import create_table_artifact
from whenthen.futures import as_completed, wait
from whenthen.task_runners import ThreadPoolTaskRunner


@task
def find(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern))


@task(task_run_name="count {path.name}")
def count_words(path: Path, least: int) -> int:
    words = path.read_text().split()
    if len(words) < least:
        raise ValueError(f"{path.name}: {len(words)} words")
    return len(words)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def count(folder: Path, pattern: str = "*.txt", least: int = 1) -> dict[str, int]:
    files = find(folder, pattern)
    futures = count_words.map(files, unmapped(least))
    done, not_done = wait(futures, timeout=60)
    assert len(done) == len(files)
    assert not not_done
    counted = {}
    for path, future in zip(files, futures, strict=True):
        if future.state.is_completed():
            counted[path.name] = future.result()
        else:
            print("left out:", future.state.message)
    create_table_artifact(key="words", table=[{"file": name, "words": number} for name, number in counted.items()])
    print("first done:", next(as_completed(futures)).state.name)
    return counted


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(count(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(5):
                Path(folder, f"{number}.txt").write_text("word " * number)
            print(count(folder))
