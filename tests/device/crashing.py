"""Die at the Nth thing that a watch does to the disk, for every N; go on; count lines. A process of its own: it forks.

The answers are moved away after every other death, as somebody does who rotates them while nothing runs. Where pictures
are moved, the ledger holds two captures at most, so that it is written anew again and again.

python -m tests.device.crashing FOLDER short|ROUNDS     prints one object: faults, captures, lost, doubled, crossed ...
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from splitcodec.device import journal as journals
from splitcodec.device.journal import Journal
from splitcodec.device.source import Folder
from splitcodec.device.spool import Spool
from splitcodec.device.still import Still
from splitcodec.device.watch import Watch
from splitcodec.errors import LinkDown, LinkRefused, PictureUnreadable
from splitcodec.wire.request import Wanted

STEPS = ("fsync", "replace", "unlink", "pwrite", "ftruncate", "truncate", "mkdir", "open", "link")
KILLED = 9
PICTURES = {"a.jpg": b"one", "b.jpg": b"bad", "c.jpg": b"hated", "d.jpg": b"four", "e.jpg": b"five", "f.jpg": b"five"}


def expected(name: str) -> set[str]:
    content = PICTURES[name]
    told = {b"bad": "unreadable", b"hated": "refused"}.get(content, content.decode())
    return {told, "as e.jpg"} if name == "f.jpg" else {told}  # what e shows, unless a death came between


def said(line: dict[str, Any]) -> str:
    if (since := line.get("unchanged_since")) is not None:
        return f"as {since.partition('@')[0]}"
    return str(line["error"]["outcome"] if "error" in line else line["answers"]["classify"][0]["label"])


def encoder(still: Still) -> Any:
    def encode(picture: Any) -> tuple[bytes, int, None]:
        if picture == b"bad":
            raise PictureUnreadable("not a picture")
        still.look(np.full((1, 1, 1), float(sum(picture)), np.float32))
        return bytes(picture), 1, None

    return encode


def flaky(chance: random.Random, *, trouble: float) -> Any:
    def send(packet: bytes, _: Wanted) -> bytes:
        if chance.random() < trouble:
            raise LinkDown("the connection broke")
        if packet == b"hated":
            raise LinkRefused("another bundle", status=400)
        guess = {"index": 0, "label": packet.decode(), "p": 1.0}
        return json.dumps({"bundle": "b@1", "level": 1, "answers": {"classify": [guess]}, "ms": {}}).encode()

    return send


def die_at(step: int, chance: random.Random) -> None:
    """Replace what changes the disk: the process dies before, in the middle of or after the call number `step`."""
    calls = 0

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def wrapped(*rest: Any, **names: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != step:
                return real(*rest, **names)
            when = chance.randrange(3)
            if name == "pwrite" and when == 1:
                real(rest[0], rest[1][: chance.randrange(len(rest[1]))], rest[2])
            elif when == 2:
                real(*rest, **names)
            os._exit(KILLED)

        setattr(os, name, wrapped)

    for name in STEPS:
        wrap(name)


def run(folder: Path, *, die: int | None, seed: int, trouble: float, after: str) -> int:
    """Run a watch once in a child that dies at step `die`; return its exit status."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    chance = random.Random(seed)
    journals.MOST_RECORDS = 2 if after == "move" else journals.MOST_RECORDS
    if die is not None:
        die_at(die, chance)
    spool = Spool(folder / "spool", reserve_bytes=0)
    journal = Journal(folder / "answers.jsonl", folder / "spool" / "ledger")
    still = Still(least=0.5)
    watch = Watch(
        encode=encoder(still),
        still=still,
        send=flaky(chance, trouble=trouble),
        source=Folder(folder / "pictures", after=after, settle_s=0.0),
        spool=spool,
        journal=journal,
        max_bytes=1_000_000,
        asking=Wanted(("classify",)),
    )
    watch.once(threading.Event())
    watch.gather()  # with a look, captures are forgotten
    left = watch.status.waiting
    os._exit(1 if left else 0)


def main(place: Path, rounds: int, *, short: bool) -> dict[str, int]:
    total: Counter[str] = Counter()
    for seed in range(rounds):
        for after in ("move",) if short else ("keep", "move"):
            step = ended = 0
            while ended < 3:  # nothing is left to die at
                step += 1
                folder = place / f"{seed}-{after}-{step}"
                (folder / "pictures").mkdir(parents=True)
                for number, (name, content) in enumerate(PICTURES.items()):
                    (folder / "pictures" / name).write_bytes(content)
                    os.utime(folder / "pictures" / name, (1e9 + number, 1e9 + number))
                chance = random.Random(f"{seed} {after} {step}")
                deaths = int(run(folder, die=step, seed=chance.randrange(1 << 30), trouble=0.0, after=after) == KILLED)
                ended = 0 if deaths else ended + 1
                rotate(folder, chance)
                for _ in range(1 if short else 2):  # and again while it picks up the pieces, with a link that breaks
                    again = run(
                        folder, die=chance.randrange(1, 14), seed=chance.randrange(1 << 30), trouble=0.3, after=after
                    )
                    deaths += again == KILLED
                    rotate(folder, chance)
                turns = 0
                while run(folder, die=None, seed=chance.randrange(1 << 30), trouble=0.3, after=after) and turns < 60:
                    turns += 1
                total["faults"] += deaths
                total.update(judge(folder))
                shutil.rmtree(folder)
    return dict(total)


def rotate(folder: Path, chance: random.Random) -> None:
    if (folder / "answers.jsonl").exists() and chance.random() < 0.5:
        (folder / "answers.jsonl").rename(folder / f"answers-{len(list(folder.glob('answers*')))}.jsonl")


def judge(folder: Path) -> Counter[str]:
    lines = [json.loads(line) for file in folder.glob("answers*.jsonl") for line in file.read_text().splitlines()]
    seen = Counter(line["picture"] for line in lines)
    wrong = sum(said(line) not in expected(line["picture"]) for line in lines)
    left = list((folder / "spool").glob("*.spool")) + list((folder / "spool").glob("*.part"))
    return Counter(
        captures=len(PICTURES),
        lost=sum(seen[name] == 0 for name in PICTURES),
        doubled=sum(count - 1 for count in seen.values()),
        crossed=wrong,
        left=len(left),
        unchanged=sum("unchanged_since" in line for line in lines),
    )


if __name__ == "__main__":
    wanted = sys.argv[2]
    print(json.dumps(main(Path(sys.argv[1]), 1 if wanted == "short" else int(wanted), short=wanted == "short")))
