"""Do the claims of this project hold? `python validation/claims.py`: every percentage that its documents simulated.

Runs whose truth is known are drawn (`worlds.py`) and given to the functions of `rnnbench.analysis`; counted is how
often intervals hold the truth and alarms are false. The same seed prints the same figures.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this tree's rnnbench, whichever is installed

OK, BROKEN, USAGE, INTERRUPTED = 0, 1, 2, 130
PARTS = ("intervals", "stop", "verdicts", "noise", "history", "alarms")
FEWEST = 10  # runs

EPILOG = f"""\b
Parts: intervals (and Student's t beside two bootstraps), stop (launches end by a rule), verdicts (two runs compared),
noise (a backend against itself), history (steps), alarms (two modes, drift); all of them unless some are named.

\b
Examples:
  python validation/claims.py
  python validation/claims.py intervals stop --runs 500 --seed 1

\b
Exit codes:
  {OK}  every share is within the bound that is stated, as far as can be told
  {BROKEN}  one surely is not
  {USAGE}  an option is wrong
  {INTERRUPTED}  interrupted
"""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.argument("parts", nargs=-1, type=click.Choice(PARTS), metavar="[PART]...")
@click.option("--runs", type=click.IntRange(FEWEST), help="Simulated runs of each row.  [default: 200 to 4000, by row]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the simulated runs.")
def main(parts: tuple[str, ...], runs: int | None, seed: int) -> None:
    """Print what is claimed, what is found, and of how many simulated runs, as Markdown.

    The interval beside a share is what chance leaves open of it, at 95 %.
    """
    import claims_parts

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    broken = []
    try:
        for part in dict.fromkeys(parts or PARTS):
            start = time.perf_counter()
            click.echo(f"## {part}\n")
            for table in claims_parts.PARTS[part](seed, runs):
                click.echo(table.markdown())
                broken += [one.complaint() for one in table.found if one.broken]
            click.echo(f"{part}: {time.perf_counter() - start:.0f} s", err=True)
    except KeyboardInterrupt:
        click.echo("Error: interrupted", err=True)
        sys.exit(INTERRUPTED)
    for complaint in broken:
        click.echo(f"Error: {complaint}", err=True)
    sys.exit(BROKEN if broken else OK)


if __name__ == "__main__":
    main()
