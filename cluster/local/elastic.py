"""Adds and removes nodes of the cluster that two_nodes.py has started, as a cloud with spot machines does.

    sudo python cluster/local/elastic.py --largest 3 --every 30 --rounds 8

Every so many seconds a node joins or, where there are enough of them, the oldest one is killed without a word. Submit a
sweep first and watch it finish. The head stays; Ctrl-C ends the coming and going and leaves the nodes that are there.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from two_nodes import MOST_NODES, UsageError, bring_up, kill_node, read_nodes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=3, help="nodes beside the head, at most (default 3)")
    parser.add_argument("--every", type=float, default=30, metavar="SECONDS", help="between two changes (default 30)")
    parser.add_argument("--rounds", type=int, help="changes in all; by default until Ctrl-C")
    arguments = parser.parse_args()
    if not 1 <= arguments.largest < MOST_NODES:
        parser.error(f"--largest: from 1 to {MOST_NODES - 1}")
    rounds = itertools.count() if arguments.rounds is None else range(arguments.rounds)
    try:
        for _ in rounds:
            time.sleep(arguments.every)
            change(arguments.largest)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def change(largest: int) -> None:
    """Kill the oldest worker if there are enough, else start one."""
    nodes = [node for node in read_nodes() if node.alive]
    if not any(node.number == 1 for node in nodes):
        raise UsageError("the head is not up; start with: two_nodes.py up")
    workers = sorted((node for node in nodes if node.number > 1), key=lambda node: node.start)
    if len(workers) >= largest:
        kill_node(workers[0].number, unplug=False)
        return
    taken = {node.number for node in workers}
    number = next(number for number in range(2, MOST_NODES + 1) if number not in taken)
    bring_up(number)
    print(f"node-{number} has joined", flush=True)


if __name__ == "__main__":
    sys.exit(main())
