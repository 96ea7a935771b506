"""Tables as Markdown and LaTeX have them."""

from collections.abc import Sequence

_SIGNS = {
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "α": r"$\alpha$",
    "τ": r"$\tau$",
    "χ²": r"$\chi^2$",
    "<": r"$<$",
    "−": "$-$",
}


def markdown(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table of Markdown, without a newline at its end."""
    lines = [headers, ["---"] * len(headers), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def latex(headers: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A `tabular` with the lines of booktabs; the first column is text, others are figures."""

    def line(texts: Sequence[str]) -> str:
        return " & ".join(map(_escaped, texts)) + r" \\"

    begin = rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}"
    inner = [line(headers), r"\midrule", *map(line, cells)]
    table = [begin, r"\toprule", *inner, r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*table, *(rf"\par {_escaped(note)}" for note in notes)]) + "\n"


def _escaped(text: str) -> str:
    """A text as LaTeX has it."""
    for plain, own in _SIGNS.items():
        text = text.replace(plain, own)
    return text
