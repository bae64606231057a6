"""Figures of all rounds in, medians and ratios out: a table, or JSON lines."""

import json
import statistics
import sys
from dataclasses import dataclass


@dataclass
class Column:
    """A figure that each run gives, and how it is shown."""

    key: str
    title: str
    unit: str
    form: str
    # In the case's name in JSON, where all columns but the first need one.
    suffix: str = ""
    has_ratio: bool = False


class Report:
    def __init__(self, bench):
        self.bench = bench
        self.title = ""
        self.columns = []
        self._runs = {}  # case -> list of {key: value}
        self._ratio_to = {}  # case -> the case that it is compared with
        self._beside = []  # (case, another case that it is compared with as well)

    def add(self, case, figures, ratio_to=None):
        """Adds what one run of a case measured."""
        self._runs.setdefault(case, []).append(figures)
        self._ratio_to[case] = ratio_to

    def beside(self, case, others):
        """Compares a case with others as well, after the table."""
        self._beside += [(case, other) for other in others]

    def cases(self):
        return list(self._runs)

    def median(self, case, key):
        return statistics.median(run[key] for run in self._runs[case])

    def print(self, as_json):
        rows = self._rows()
        if as_json:
            for row in rows + [row for case, other in self._beside for row in self._ratios(case, other)]:
                print(json.dumps(row))
        else:
            self._print_table(rows)
            self._print_beside()

    def _rows(self):
        rows = []
        for case, base in self._ratio_to.items():
            rows += [self._row(case, base, column) for column in self.columns]
        return rows

    def _ratios(self, case, base):
        return [self._row(case, base, column) for column in self.columns if column.has_ratio]

    def _row(self, case, base, column):
        value = self.median(case, column.key)
        row = {"bench": self.bench, "case": case + column.suffix}
        row |= {"value": round(value, 3), "unit": column.unit, "ratio_to": None, "ratio": None}
        below = self.median(base, column.key) if base and column.has_ratio else 0
        if below:
            row |= {"ratio_to": base + column.suffix, "ratio": round(value / below, 3)}
        return row

    def _print_beside(self):
        for case, other in self._beside:
            ratios = zip((column for column in self.columns if column.has_ratio), self._ratios(case, other))
            shown = ", ".join(f"{column.title} {row['ratio']:.2f}" for column, row in ratios if row["ratio"] is not None)
            print(f"\n{case} / {other}: {shown}", end="")
        if self._beside:
            print()

    def _print_table(self, rows):
        head = ["case"]
        for column in self.columns:
            head += [column.title] + ["ratio"] * column.has_ratio
        lines = [head]
        rows = iter(rows)
        for case in self._ratio_to:
            line = [case]
            for column in self.columns:
                row = next(rows)
                line.append(column.form.format(row["value"]))
                if column.has_ratio:
                    line.append("" if row["ratio"] is None else f"{row['ratio']:.2f}")
            lines.append(line)
        widths = [max(map(len, cells)) for cells in zip(*lines)]
        print(self.title, end="\n\n")
        for first, *others in lines:
            cells = [cell.rjust(width) for cell, width in zip(others, widths[1:])]
            print("  ".join([first.ljust(widths[0]), *cells]))


def note(text):
    """Prints progress on stderr; stdout is for results."""
    print(text, file=sys.stderr, flush=True)
