"""Numbers as people read them; shared by sentences, tables and charts."""

import math


def percent(share: float) -> str:
    """0.4394 -> 43.9 %; two digits below one percent."""
    value = 100 * share
    if value == 0 or value >= 99.95:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def area(mm2: float) -> str:
    """Three digits, in mm2, or in um2 where it is small."""
    if 0 < mm2 < 0.001:
        return f"{digits(mm2 * 1e6)} µm²"
    return f"{digits(mm2)} mm²"


def digits(value: float) -> str:
    """Three significant digits, without an exponent; thousands apart."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    places = max(2 - math.floor(math.log10(abs(value))), 0)
    return f"{value:,.{places}f}".replace(",", "\u202f")


def count(number: int) -> str:
    """Thousands apart."""
    return f"{number:,}".replace(",", "\u202f")


def seconds(value: float) -> str:
    """0.2 s, 26.6 s, 3 min 20 s, 2 h 05 min."""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(value / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def tiles(number: int) -> str:
    """With its noun."""
    return f"{count(number)} tile{'' if number == 1 else 's'}"


def listed(parts: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
