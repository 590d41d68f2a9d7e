"""The patterns by which `volatile` knows a value and the words before it. Data, no decisions."""

from __future__ import annotations

import re

LABEL_REACH = 56
"""How many characters before a value its label may begin."""
EXAMPLE_REACH = 96

_I = re.IGNORECASE

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_DAY = r"(?:Mon|Tues?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?"
_YEAR = r"(?:19|20)\d\d"
_ISO_DATE = rf"{_YEAR}-[01]\d-[0-3]\d"
_CLOCK = r"[0-2]?\d:[0-5]\d(?::[0-5]\d(?:[.,]\d{1,9})?)?(?: ?[AaPp]\.?[Mm]\b\.?)?"
_ZONE = r"(?: ?(?:Z\b|[+-]\d\d:?\d\d\b|(?:UTC|GMT|CET|CEST|EST|EDT|CST|CDT|MST|MDT|PST|PDT|BST|IST|JST)\b(?:[+-]\d{1,4})?))?"
_WRITTEN_DATE = (
    rf"(?:(?:{_DAY},? )?(?:{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?,? {_YEAR}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?[ -]{_MONTH}\.?,?[ -]{_YEAR}))"
)
_SLASHED_DATE = rf"(?:{_YEAR}/[01]?\d/[0-3]?\d|[0-3]?\d[/.][0-3]?\d[/.]{_YEAR})"

TIMESTAMP = re.compile(
    rf"\b(?:{_ISO_DATE}(?:T| at |,? )(?:{_CLOCK}|[0-2]\d[0-5]\d(?:[0-5]\d)?Z){_ZONE}"
    rf"|{_YEAR}[01]\d[0-3]\dT[0-2]\d[0-5]\d[0-5]\d{_ZONE}"
    rf"|(?:{_SLASHED_DATE}|{_WRITTEN_DATE})(?:,? at |[,-]? ){_CLOCK}{_ZONE}"
    # ctime and JavaScript: Thu Nov 20 23:33:50 UTC 2025, Thu Nov 20 2025 23:33:50 GMT+0100
    rf"|{_DAY} {_MONTH} [ \d]?\d (?:{_YEAR} )?{_CLOCK}{_ZONE}(?: {_YEAR})?)"
)
CLOCK_TIME = re.compile(rf"(?<![\d:.]){_CLOCK}{_ZONE}")
DATE = re.compile(rf"\b(?:{_ISO_DATE}|{_WRITTEN_DATE}|{_SLASHED_DATE})\b")
# Seconds, milliseconds or nanoseconds since 1970, for moments from 2017 to 2033.
EPOCH = re.compile(r"(?<![\w.-])1[5-9]\d{8}(?:\d{3}|\d{9})?(?:\.\d{1,7})?(?![\w-])")

# What may stand between a label and its value: `is`, `:`, `=`, quotes, tags, a word in brackets.
_LINK = r"""(?: ?\([^()\n]{0,16}\))?(?:["'`*>\]]|\*\*){0,3} ?(?:is|was|it's|it is|now|[:=])?[ \t"'`*<(\[]{0,4}"""
_WEEKDAY = rf"(?:{_DAY},? ?)?"
_LEAD = r"(?:at |on |exactly |about |, ?)?"

NOW_LABEL = re.compile(
    r"(?:\b(?:current|present|local|system|server|user'?s?|utc)(?: local| system| utc)?[ _-]?"
    r"(?:date ?(?:and|&|/) ?time|date[ _-]?time|time(?:stamp)?|date|day)"
    r"|\b(?:now|today|todays? date|today'?s date(?: and time)?|right now|the (?:time|date)(?: and (?:time|date))?(?: now)?"
    r"|it(?: is|'s)(?: currently| now)?|time (?:now|of (?:this )?request)|request[ _-]?time(?:stamp)?))"
    r"(?: (?:of|for|in|at)(?: the)? [\w/]{1,20})?"
    rf"{_LINK}{_LEAD}{_WEEKDAY}(?:{_ISO_DATE},? ?|{_WRITTEN_DATE},? ?(?:and )?(?:the time )?(?:is )?)?$",
    _I,
)
TIME_KEY = re.compile(
    r"""(?:^|[\s<\[({|;*-])(?:time(?:stamp)?|date[ _/]?time|date (?:and|&) time|now|clock|ts)"""
    rf"(?: \([^()\n]{{0,16}}\))?(?:\*\*|>)? ?[:=>] ?[\"'`*]{{0,2}}{_WEEKDAY}$",
    _I,
)
DATE_KEY = re.compile(
    rf"^\s*(?:[-*#<] ?)?(?:\*\*)?(?:date|as of)(?:\*\*|>)? ?[:=>]? ?{_WEEKDAY}$", _I
)
_MADE_LABEL = re.compile(
    r"\b(?:generated|rendered|retrieved|fetched|refreshed|synced|snapshot(?: taken)?|prompt built)"
    rf"(?: at| on)?{_LINK}{_WEEKDAY}$",
    _I,
)
STAMP_LABELS = (NOW_LABEL, TIME_KEY, DATE_KEY, _MADE_LABEL)
# May as well be history that an author wrote down.
CHANGED_LABEL = re.compile(
    rf"\b(?:updated|as of|created|started|built)(?: at| on)?{_LINK}{_WEEKDAY}$", _I
)
EPOCH_KEY = re.compile(
    r"\b(?:time|timestamp|ts|epoch|now|clock|unix(?: time)?|epoch (?:seconds|millis(?:econds)?|ms))"
    rf"{_LINK}$",
    _I,
)

UUID = re.compile(
    r"(?<![0-9A-Za-z-])[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(?![0-9A-Za-z-])",
    _I,
)
MODEL_UUIDS = frozenset(
    {
        "123e4567-e89b-12d3-a456-426614174000",
        "123e4567-e89b-12d3-a456-426655440000",
        "550e8400-e29b-41d4-a716-446655440000",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "12345678-1234-1234-1234-123456789012",
        "12345678-1234-5678-1234-567812345678",
        "12345678-90ab-cdef-1234-567890abcdef",
        "01234567-89ab-cdef-0123-456789abcdef",
        "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    }
)
"""Those that documentation uses for "some UUID"."""

_REQUEST = r"(?:request|req|trace|span|correlation|message|msg|run|execution|invocation|job|transaction|idempotency|call)"
_SESSION = r"(?:session|conversation|chat|thread|instance|container|pod|worker)"
_OWNER = r"(?:user|customer|account|tenant|org(?:ani[sz]ation)?|client|device|workspace|employee|member|ticket|order)"
_ID_WORD = r"[ _-]?(?:id|identifier|uuid|guid|key|token|ref(?:erence)?|number|no\.?|#)"
_TRACEPARENT = r"|\btraceparent[\"']? ?[:=] ?[\"']?(?:00-)?$"
REQUEST_ID_LABEL = re.compile(rf"\b(?:x-)?{_REQUEST}{_ID_WORD}{_LINK}${_TRACEPARENT}", _I)
SESSION_ID_LABEL = re.compile(rf"\b{_SESSION}{_ID_WORD}{_LINK}$", _I)
OWNER_ID_LABEL = re.compile(rf"\b{_OWNER}{_ID_WORD}{_LINK}$", _I)
# A UUID needs less of a label: `Conversation: d703a1a9-...`.
REQUEST_LABEL = re.compile(rf"\b(?:x-)?{_REQUEST}(?:{_ID_WORD})?{_LINK}$", _I)
SESSION_LABEL = re.compile(rf"\b{_SESSION}(?:{_ID_WORD})?{_LINK}$", _I)
COMMIT_LABEL = re.compile(
    r"\b(?:commit|revision|git)[ _-]?(?:sha|hash|id|rev(?:ision)?|head)?[\"'`*>]{0,3} ?(?:is|[:=])[ \"'`*<(]{0,4}$"
    r"|\bHEAD(?: is now)? at $",
    _I,
)
HEX = re.compile(r"[0-9a-f]{7,64}")
# A word with a digit in it; what it is depends on its label.
TOKEN = re.compile(r"(?<![\w.-])(?=[A-Za-z_-]{0,64}\d)[\w-]{5,128}(?![\w-])", re.ASCII)
PREFIXED_ID = re.compile(
    r"\b(?:(?P<ours>req|request|sess|session|trace|run|thread|conv|job)|msg|call|toolu|chatcmpl|resp|evt|txn)"
    r"[_-](?P<random>[A-Za-z0-9]{10,64})\b"
)
RANDOM_LABEL = re.compile(
    rf"\b(?:(?:random |rng )?seed|nonce|salt|cache[ _-]?bust(?:er|ing)?|random(?:[ _-](?:number|value|string|token|id))?|entropy){_LINK}$",
    _I,
)

_COUNTED = r"(?:request|turn|message|iteration|call|query|round|invocation|interaction|exchange)"
COUNTER = re.compile(
    rf"\b{_COUNTED}(?: no\.?| number| count(?:er)?| index)?[:#= ]{{0,3}}\d{{1,9}} ?(?:of|/|out of) ?\d{{1,9}}\b"
    rf"|\b{_COUNTED} ?#\d{{1,9}}\b"
    rf"|\b{_COUNTED}[ _](?:number|count(?:er)?|no\.?|index)(?: is|:| =|=)? ?\d{{1,9}}\b"
    r"|\b(?:turn|iteration|round): ?\d{1,9}\b"
    r"|\b(?:this is|current(?:ly)?(?: on)?|now (?:on|at)|you are (?:on|at))[ :]{1,2}(?:your )?"
    r"(?:turn|step|iteration|round|attempt|request|message|call)[ :#]{1,2}\d{1,9}\b"
    r"|(?<![\w,.-])\d[\d,]{0,11} (?:more )?(?:tokens|requests|turns|messages|calls|credits)(?: are)? (?:remaining|left)\b"
    r"|\b(?:tokens?|context|budget|credits?|quota)(?: window)?[ _](?:used|usage|remaining|left|spent)"
    r" ?(?:[:=]|is) ?\$?\d[\d,.]{0,14}"
    r"|\bremaining (?:tokens?|context|budget|credits?|quota)(?: window)?"
    r" ?(?:[:=]|is) ?\$?\d[\d,.]{0,14}",
    _I,
)

TEMP_PATH = re.compile(
    r"(?<![\w/])(?:(?P<mac>(?:/private)?/var/folders/\w\w/\w{6,64})"
    r"|(?:/var)?/tmp/(?:\w{0,16}?[._-]){0,2}(?P<random>(?:tmp)?[A-Za-z0-9_]{5,40})(?!\w|\.\w))"
    r"|\bC:\\Users\\[^\\\s]{1,40}\\AppData\\Local\\Temp\\(?P<windows>\w{3,40})"
)
PROCESS = re.compile(
    r"\b(?:pid|process id)\b[\"']? ?(?:is|[:=#])? ?\d{2,7}\b"
    r"|\b(?:localhost|127\.0\.0\.1|0\.0\.0\.0):(?:3276[89]|327[7-9]\d|32[89]\d\d|3[3-9]\d{3}|[45]\d{4}|6[0-5]\d{3})\b",
    _I,
)
DIRECTORY = re.compile(
    r"\b(?:(?:current |primary )?working director(?:y|ies)|cwd|pwd|workspace(?:[ _](?:root|path|folder))?"
    r"|project[ _](?:root|path|directory)|home[ _]directory)\b[\"'`*>]{0,3} ?(?:is|[:=])?[ \"'`*]{0,3}"
    r"(?P<value>(?:/Users/|/home/|/private/|/var/folders/|/tmp/|[A-Z]:\\Users\\)[^\s\"'`<,;]{1,200})"
    r"|^[-*<# ]{0,4}(?:host[ _]?name|machine name|host)\b[\"'`*>]{0,3} ?(?:is|[:=])?[ \"'`*]{0,3}"
    r"(?P<host>(?=[a-z.-]{0,40}\d)[a-z\d]{1,40}[.-][\w.-]{1,80})",
    _I | re.MULTILINE,
)
GIT_STATUS = re.compile(
    r"\bgit ?status: "
    r"|(?:^|\n)(?:[-*] )?(?:current )?(?:git )?branch: ?\S{1,100}(?=\s{0,4}(?:\n|$))"
    r"|(?:^|\n)recent commits:\s{0,4}[-* ]{0,3}[0-9a-f]{7,40}\b"
    r"|\byour branch is (?:up to date with|ahead of|behind) '",
    _I,
)
BILLING_HEADER = re.compile(r"x-anthropic-billing-header:[^\n]{0,200}?\bcch=[\w-]{2,64};?", _I)

# {{ now }}, ${requestId}, <%= Time.now %>
PLACEHOLDER = re.compile(
    r"(?:\{\{[ -]{0,2}|\$\{ ?|<%= ?)(?P<name>[A-Za-z_][\w.()]{0,60})"
    r"[ -]{0,2}(?:\|[^}%\n]{0,40})?(?:\}|%>)"
)
# {current_time}: only behind words that say so; else it may be an output format.
BRACED = re.compile(r"(?<![{$])\{[A-Za-z_]\w{1,40}\}(?!\})")

# Two of these lines make a mail that somebody quotes.
MAIL_HEADER = re.compile(
    r"^(?:From|To|Cc|Date|Sent|Subject|Message-ID|Received|Content-Type|In-Reply-To): ?\S",
    _I | re.MULTILINE,
)
EXAMPLE_WORD = re.compile(
    r"\b(?:e\.g|eg|examples?|formats?|formatted|such as|for instance|like|sample|iso[ -]?8601|rfc ?\d{3,4}"
    r"|placeholder|dummy|looks like)\b",
    _I,
)
EXAMPLE_EDGE = re.compile(
    r"(?P<open><(?:[a-z]{0,16}[_-])?(?:examples?|samples?|demonstrations?)\b)"
    r"|(?P<close></(?:[a-z]{0,16}[_-])?(?:examples?|samples?|demonstrations?)\b)"
    r"|(?P<example_heading>^(?:#{1,6} |\*\*)[^\n]{0,60}?\b(?:example|sample|demonstration)s?\b)"
    r"|(?P<heading>^#{1,6} )",
    _I | re.MULTILINE,
)
