"""Text as people type it into a PSA: emoji, HTML, other alphabets, quotes, empty strings.

Each function draws one string from the generator handed in; none keeps state.
"""

from random import Random

_TROUBLES = (
    "Printer on 2nd floor prints ☕ stains",
    "Outlook keeps asking for password",
    "VPN drops every 10 minutes",
    "Can't open \\\\fs01\\share\\Q3 budget.xlsx",
    "New starter: Zoë Ångström",
    'Error "0x80070005" after update',
    "🔥 Server room at 41 °C",
    "Backup failed (exit code 5)",
    "Wi-Fi <b>slow</b> in meeting room",
    "Заменить диск на сервере",
    "無線LANに接続できない",
    "Réinitialiser le mot de passe",
    "Invoice #1003 & PO mismatch",
    "Laptop won't dock 👩‍💻",
    "Phish? Mail from it's-support@exämple.com",
    "לא ניתן להתחבר ל-VPN",
)
_FIRST_NAMES = (
    "Ana",
    "Björn",
    "Chloé",
    "Dmitri",
    "Eun-ji",
    "Fatima",
    "Grace",
    "Håkon",
    "Inés",
    "Jürgen",
    "Łukasz",
    "美咲",
)
_LAST_NAMES = (
    "O'Neil",
    "Müller",
    "Nguyễn",
    "García-López",
    "van der Berg",
    "Smith",
    "Şahin",
    "Иванова",
    "D'Souza",
    "田中",
)
_COMPANY_HEADS = ("Alder", "Brückner", "Café Olé", "Delta", "Éclair", "Fjord", "Granite", "Harbor", "Ivory", "Juniper")
_COMPANY_TRADES = ("Dental", "Logistics", "Legal", "Manufacturing", "Robotics", "Accounting", "Veterinary", "Foods")
_COMPANY_FORMS = ("LLC", "GmbH", "& Söhne", "Inc.", "S.à r.l.", "Ltd", "株式会社", '"Group"')
_STREETS = ("Main St.", "Königsallee", "Rue de l'Église", "5th Ave", "Strandgata", "ул. Ленина")
_CITIES = ("Tampa", "München", "Montréal", "São Paulo", "Ålesund", "Kraków", "大阪")
_SENTENCES = (
    "Called the customer, left a voicemail.",
    "Restarted the spooler & cleared the queue.",
    'User says it "just works" now 🤷',
    'See <a href="https://kb.example/42?x=1&y=2">KB 42</a>.',
    "<p>Replaced <b>PSU</b>&nbsp;&mdash; tested 30 min</p>",
    "Path: C:\\Temp\\new\\table",
    "Tab\tand\r\nnew line, as pasted from Word “smart quotes”…",
    "Größe: 12 µm; price: 10 €; naïve café.",
    "Zero\u200bwidth and non\u00a0breaking.",
    "电话已拨打，等待回复。",
)


def summary(rng: Random) -> str:
    """One line of at most 100 characters: `summary` of a ticket, `name` of an activity (vendor limit 100)."""
    return f"{rng.choice(_TROUBLES)} [{rng.randrange(10_000)}]"


def paragraph(rng: Random) -> str:
    """Up to four sentences, sometimes none: notes and descriptions are often empty strings."""
    return " ".join(rng.choice(_SENTENCES) for _ in range(rng.randrange(5)))


def line(rng: Random) -> str:
    """One sentence of at most 50 characters: the vendor limits many short texts to that."""
    return rng.choice(_SENTENCES)[:50]


def first_name(rng: Random) -> str:
    return rng.choice(_FIRST_NAMES)


def last_name(rng: Random) -> str:
    return rng.choice(_LAST_NAMES)


def company_name(rng: Random) -> str:
    """At most 50 characters (vendor limit of `Company.name`)."""
    number = rng.randrange(1000)
    return f"{rng.choice(_COMPANY_HEADS)} {rng.choice(_COMPANY_TRADES)} {number} {rng.choice(_COMPANY_FORMS)}"


def identifier(rng: Random) -> str:
    """A short key as the vendor makes them: letters and digits, at most 10 (the tightest limit)."""
    return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ23456789") for _ in range(rng.randint(4, 10)))


def street(rng: Random) -> str:
    return f"{rng.randint(1, 999)} {rng.choice(_STREETS)}"


def city(rng: Random) -> str:
    return rng.choice(_CITIES)


def postcode(rng: Random) -> str:
    """Text, not a number: the leading zero counts."""
    return f"{rng.randrange(100_000):05d}"


def digits(rng: Random) -> str:
    """A phone number without marks, at most 15 characters."""
    return f"0{rng.randrange(10**9):09d}"


def phone(rng: Random) -> str:
    return f"+1 (813) {rng.randrange(1000):03d}-{rng.randrange(10_000):04d}"


def email(rng: Random) -> str:
    return f"user{rng.randrange(100_000)}@kunde{rng.randrange(100)}.example"


def website(rng: Random) -> str:
    return f"https://www.kunde{rng.randrange(1000)}.example/?a=1&b=2"


def serial_number(rng: Random) -> str:
    return f"SN{rng.getrandbits(40):010X}"


def part_number(rng: Random) -> str:
    return f"{rng.choice('ABCDEF')}{rng.randrange(1000):03d}-{rng.randrange(100):02d}"


def ip_address(rng: Random) -> str:
    return f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"


def mac_address(rng: Random) -> str:
    return ":".join(f"{rng.randrange(256):02X}" for _ in range(6))


def guid(rng: Random) -> str:
    """A version 4 shaped GUID in the vendor's lower case."""
    text = f"{rng.getrandbits(128):032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"
