"""Secrets: what looks like one is taken out before anything of a run is written.

Five signs are looked for: the formats of known tokens (``hf_``, ``ghp_``, ``sk-``, ``AKIA``, JSON web tokens, PEM keys), a
name that says so (``--api-key``, ``password:``), credentials in URLs, places that hold nothing else (``curl -u me:…``,
``auth=("me", "…")``, webhooks), and values that such a name has given already, in
the environment or in the arguments, wherever they are met again.
"""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from relume.text import REDACTED

_STRONG = frozenset([
    "password", "passwd", "passphrase", "passcode", "pwd", "secret", "secrets", "credential", "credentials", "apikey",
])  # fmt: skip
_PAIRS = frozenset({
    ("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key"), ("signing", "key"), ("encryption", "key"),
    ("auth", "key"), ("account", "key"), ("ssh", "key"), ("license", "key"), ("wandb", "key"), ("access", "token"),
    ("auth", "token"), ("refresh", "token"), ("bearer", "token"), ("session", "token"), ("id", "token"), ("api", "token"),
    ("hf", "token"), ("github", "token"), ("hub", "token"), ("gh", "token"), ("security", "token"), ("oauth", "token"),
    ("client", "secret"), ("connection", "string"), ("db", "pass"), ("database", "pass"), ("user", "pass"), ("smtp", "pass"),
    ("mail", "pass"), ("email", "pass"), ("redis", "pass"), ("mysql", "pass"), ("root", "pass"), ("admin", "pass"),
})  # fmt: skip
_WORDS_OF_TEXT = frozenset([
    "pad", "eos", "bos", "unk", "sep", "cls", "mask", "start", "end", "special", "image", "num", "max", "min", "stop",
    "next", "prev", "first", "last", "per", "n", "input", "output",
])  # fmt: skip
"""Before ``token``, these make it one of a text."""

_FORMATS = re.compile(
    r"""
      \b(?:hf|api_org)_[A-Za-z0-9]{16,}
    | \bgh[pousr]_[A-Za-z0-9]{16,} | \bgithub_pat_\w{20,} | \bglpat-[\w-]{16,}
    | \bsk-(?:ant-|proj-|or-|svcacct-)?[\w-]{16,} | \b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}
    | \b(?:AKIA|ASIA|ABIA|ACCA)[0-9A-Z]{16}\b
    | \bxox[abeprs]-[\w-]{10,} | \bAIza[\w-]{30,} | \bya29\.[\w-]{20,}
    | \bwandb_v\d_\w{20,} | \br8_[A-Za-z0-9]{20,} | \bnpm_[A-Za-z0-9]{30,} | \bpypi-[\w-]{30,} | \bdop_v1_[0-9a-f]{40,}
    | \bSG\.[\w-]{16,}\.[\w-]{16,} | \bnvapi-[\w-]{20,} | \bgsk_[A-Za-z0-9]{20,}
    | \beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{5,}
    """,
    re.VERBOSE,
)
_MARKS = (
    "hf_", "api_org_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-", "k_live_", "k_test_", "AKIA",
    "ASIA", "ABIA", "ACCA", "xox", "AIza", "ya29.", "wandb_v", "r8_", "npm_", "pypi-", "dop_v1_", "SG.", "nvapi-", "gsk_", "eyJ",
)  # fmt: skip
"""One of these stands in whatever `_FORMATS` finds: looking for them is quicker."""
_HINTS = (
    "pass", "pwd", "secret", "cred", "token", "key", "auth", "bearer", "basic ", "wandb", "sig", "cookie", "session", "pat",
    "connection", "curl", "wget", "login", "webhook", "hooks.", "telegram",
)  # fmt: skip
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----(?:(?!-----END)[\s\S]){0,20000}(?:-----END [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----)?"
)
_URL = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]{1,30}://)([^\s/?#@'\"<>\\]{1,500}|[^\s/?#@:'\"<>\\]{0,200}:(?!\d+/)[^\s@'\"<>\\]{1,500})@"
)
_QUERY = re.compile(
    r"([?&;](?:[\w.-]*(?:token|secret|password|signature|credential)|[\w.-]*api[_-]?key|key|sig|auth)=)([^\s&;'\"<>\\]+)",
    re.I,
)
_BEARER = re.compile(r"\b(Bearer|Basic|Token)(\s+)([A-Za-z0-9._~+/-]{12,}=*)")
_NETRC = re.compile(
    r"(\b(?:machine|default|login|account)\b[^\n]{0,300}?\bpassword\s+|^[ \t+-]*password[ \t]+)(\S+)", re.I | re.M
)
_WANDB = re.compile(
    r"(\bwandb\b[^\n]{0,60}?|\bkey\b['\"]?\s*[:=]\s*['\"]?)(?<![0-9a-fA-F])([0-9a-f]{40})(?![0-9a-fA-F])", re.I
)
_BY_PLACE = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        r"(?P<front>\b(?:curl|wget|https?)\b[^\n]{0,300}?\s(?:-u|--user|--proxy-user)[\s=]*['\"]?[^\s:'\"]{1,80}:)(?P<secret>[^\s'\"]+)",
        r"(?P<front>\bsshpass\s+-p\s*['\"]?)(?P<secret>[^\s'\"]+)",
        r"(?P<front>\blogin\b[^\n]{0,200}?\s-p[\s=]+['\"]?)(?P<secret>[^\s'\"]+)",
        r"(?P<front>\b(?:auth\s*=\s*|(?:HTTP)?(?:Basic|Digest)Auth|\.login)\(\s*['\"][^'\"\n]{1,80}['\"]\s*,\s*['\"])(?P<secret>[^'\"\n]+)",
        r"(?P<front>\bhooks\.slack\.com/(?:services|workflows)/)(?P<secret>[\w/-]{8,})",
        r"(?P<front>\bdiscord(?:app)?\.com/api/webhooks/\d+/)(?P<secret>[\w-]{8,})",
        r"(?P<front>\bwebhook\.office\.com/)(?P<secret>[\w@/-]{8,})",
        r"(?P<front>\bapi\.telegram\.org/bot)(?P<secret>\d+:[\w-]{8,})",
    )
)
"""Secrets that have no name: where they stand in a command, a call or an address says what they are."""
_NAME_AND_VALUE = re.compile(
    r"(?P<front>['\"]?\bname['\"]?\s*:\s*['\"]?(?P<name>[A-Za-z_][\w.-]{0,60})['\"]?\s*,?\s*['\"]?\bvalue['\"]?\s*:\s*['\"]?)"
    r"(?P<value>[^\s'\",}]{4,500})"
)
"""``{"name": "HF_TOKEN", "value": "…"}``, and the same in YAML."""
_NAME = r"(?<![\w.-])(?P<name>-{0,2}[A-Za-z_][\w.-]{0,60})(?P<close>['\"]?\]?\s*(?::\s*[\w.\[\]| ]{1,30}?)?(?:=|:|=>|:=)\s*)"
_QUOTED = re.compile(
    _NAME + r"(?P<prefix>[rbuRBU]{0,2})(?P<quote>'''|\"\"\"|\\?['\"])(?P<value>[^'\"\n]{1,500})(?P=quote)"
)
_CALLED = re.compile(
    r"(?P<front>['\"](?P<name>-{0,2}[A-Za-z_][\w.-]{0,60})['\"]\s*,\s*(?:[^()'\"\n]{0,100}\bdefault\s*=\s*)?)"
    r"(?P<quote>['\"])(?P<value>[^'\"\n]{4,500})(?P=quote)"
)
"""``setdefault("API_KEY", "…")``, ``add_argument("--api-key", default="…")``: not ``("password", "secret")``, which are names."""
_BARE = re.compile(_NAME + r"(?P<value>[^\s'\",;(){}\[\]<>$]{4,500})(?=[\s,;})]|$)", re.M)
_OPTION = re.compile(r"(?P<name>(?<![\w-])--?[A-Za-z][\w-]{1,60})(?P<close>[ \t]+)(?P<value>[^\s'\"-][^\s'\"]{2,500})")


def is_secret_name(name: str) -> bool:
    """Whether what bears this name is a secret, by the words it consists of.

    Example:
        >>> [n for n in ("hf_token", "apiKey", "db.password", "pad_token", "max_tokens", "key", "lr") if is_secret_name(n)]
        ['hf_token', 'apiKey', 'db.password']
    """
    words = _words(name)
    if not words:
        return False
    if not _STRONG.isdisjoint(words) or any(pair in _PAIRS for pair in pairwise(words)):
        return words[-1] not in ("length", "len", "count", "size", "file", "path", "policy", "name", "prompt", "id")
    return words[-1] in ("token", "bearer", "authorization") and _WORDS_OF_TEXT.isdisjoint(words)


def _words(name: str) -> list[str]:
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]


def _may_be_key(name: str) -> bool:
    """Whether a random looking value of this name is a secret: ``key``, ``auth``, ``wandb``."""
    return not {"key", "keys", "auth", "token", "wandb", "signature", "cookie", "session", "pat"}.isdisjoint(
        _words(name)
    )


def looks_random(value: str) -> bool:
    """Whether a text is long, of many different characters, and no word, path or name.

    Example:
        >>> looks_random("q8Zt3LmXv91kPa0Wd7Rs"), looks_random("resnet50_imagenet_v2"), looks_random("a" * 40)
        (True, False, False)
    """
    if not 16 <= len(value) <= 4096 or not re.fullmatch(r"[\w+/=.~-]+", value, re.ASCII):
        return False
    if not re.search(r"\d", value) or not re.search(r"[A-Za-z]", value):
        return False
    counts = Counter(value)
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    changes = len(re.findall(r"(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]|(?<=[a-z])[A-Z]|(?<=[A-Z])[a-z]", value))
    return bits >= 3.0 and changes >= len(value) / 6


_SECRET_FILES = frozenset({
    ".netrc", "_netrc", ".pgpass", ".htpasswd", ".git-credentials", ".pypirc", ".npmrc", ".dockercfg", ".boto", ".s3cfg",
    "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ecdsa_sk", "id_ed25519_sk", "authorized_keys", "known_hosts",
    "credentials", "credentials.json", "credentials.yaml", "credentials.yml", "credentials.toml", "credentials.csv",
    "secrets.json", "secrets.yaml", "secrets.yml", "secrets.toml", "secrets.py", "secrets.env", "secret.json",
    "client_secret.json", "service_account.json", "service-account.json", "kaggle.json", "application_default_credentials.json",
    "token", "token.txt", "token.json", "api_key.txt", "apikey.txt", "kubeconfig", "terraform.tfstate", "rclone.conf",
})  # fmt: skip
_SECRET_ENDS =[
    ".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ppk", ".asc", ".gpg", ".pgp", ".p8", ".der",
    ".ovpn", ".kbx", ".tfstate", ".tfvars", ".secret", ".secrets",
]  # fmt: skip
_SECRET_FOLDERS = frozenset({".ssh", ".aws", ".gnupg", ".kube", ".azure", ".docker", ".gcloud", "secrets", ".secrets"})


def is_secret_file(path: str) -> bool:
    """Whether a file's name says that it holds secrets: such a file is left out whatever stands in it.

    Example:
        >>> [p for p in (".env", "conf/.env.local", ".env.example", "a/id_rsa", "b/server.pem", "train.py") if is_secret_file(p)]
        ['.env', 'conf/.env.local', 'a/id_rsa', 'b/server.pem']
    """
    place = PurePosixPath(path.replace("\\", "/").lower())
    name = place.name
    if name.endswith((".example", ".sample", ".template", ".dist")):
        return False
    if name in _SECRET_FILES or name.endswith(tuple(_SECRET_ENDS)) or not _SECRET_FOLDERS.isdisjoint(place.parts[:-1]):
        return True
    if name in (".env", ".envrc") or name.startswith(".env.") or name.endswith(".env"):
        return True
    return bool(
        re.match(
            r"(client[_-]secret|service[_-]?account|gcp[_-]key|.*[_-]credentials?)\b.*\.(json|ya?ml|toml|csv)$", name
        )
    )


_NOTHING = frozenset({"null", "none", "true", "false", "yes", "no", "~"})


class Redactor:
    """Takes secrets out of texts, arguments and settings, and counts them.

    Args:
        arguments: a command's arguments: values that they give to secrets are known from then on.
        environment: variables of the process; those whose name says that they are a secret are known by their value.

    Attributes:
        count: how many secrets were taken out so far.

    Example:
        >>> redactor = Redactor(["train.py", "--token", "swordfish1"])
        >>> redactor.arguments(["train.py", "--token", "swordfish1", "--lr=0.1"])
        ['train.py', '--token', '[redacted]', '--lr=0.1']
        >>> redactor.text("login('swordfish1') at https://me:pw@example.org/x")
        "login('[redacted]') at https://[redacted]@example.org/x"
    """

    def __init__(self, arguments: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> None:
        self.count = 0
        self._known: set[str] = set()
        for name, value in (environment or {}).items():
            if is_secret_name(name):
                self._learn(value)
        self.arguments(arguments)
        self.count = 0

    def _learn(self, value: str) -> None:
        """Values that may be ordinary words, such as ``true`` or ``0``, are only hidden where their name stands."""
        if len(value) >= 8 and value != REDACTED and not _is_place(value):
            self._known.add(value)

    def _hide(self, value: str, learn: bool = False) -> str:
        if value == REDACTED or not value:
            return value
        if learn:
            self._learn(value)
        self.count += 1
        return REDACTED

    def text(self, text: str, *, is_settings: bool = False) -> str:
        """``text`` without its secrets; it keeps its number of lines.

        Args:
            is_settings: it is no program, so that ``password: hunter`` names no type.
        """
        for value in sorted(self._known, key=len, reverse=True):
            if value in text:
                self.count += text.count(value)
                text = text.replace(value, REDACTED)
        if "PRIVATE KEY" in text:
            text = _PEM.sub(lambda m: self._hide(m[0]) + "\n" * m[0].count("\n"), text)
        if any(mark in text for mark in _MARKS):
            text = _FORMATS.sub(lambda m: self._hide(m[0]), text)
        if "@" in text:
            text = _URL.sub(self._url, text)
        lowered = text.lower()
        if not any(hint in lowered for hint in _HINTS):
            return text
        return "".join(self._named(lines, is_settings) if is_named else lines for lines, is_named in _hinted(text))

    def _named(self, text: str, is_settings: bool) -> str:
        """What bears the name of a secret, in some lines of a text."""
        if "=" in text or ":" in text:
            text = _QUERY.sub(lambda m: m[1] + self._hide(m[2]), text)
            text = _QUOTED.sub(self._quoted, text)
            text = _BARE.sub(lambda m: self._bare(m, is_settings), text)
            text = _NAME_AND_VALUE.sub(self._value, text)
        if "," in text:
            text = _CALLED.sub(self._called, text)
        for pattern in _BY_PLACE:
            text = pattern.sub(self._by_place, text)
        text = _BEARER.sub(lambda m: m[0] if not re.search(r"\d", m[3]) else m[1] + m[2] + self._hide(m[3]), text)
        if "--" in text:
            text = _OPTION.sub(self._option, text)
        text = _WANDB.sub(lambda m: m[1] + self._hide(m[2]), text)
        return _NETRC.sub(self._netrc, text) if "password" in text.lower() else text

    def _url(self, match: re.Match[str]) -> str:
        scheme, user = match[1], match[2]
        if re.fullmatch(r"<?(?:USER|USERNAME|NAME)>?:<?(?:PASSWORD|TOKEN)>?", user):  # what a manual shows
            return match[0]
        if ":" not in user and not scheme.lower().startswith(("http", "ftp")):  # ssh://git@host names no secret
            return match[0]
        return f"{scheme}{self._hide(user)}@"

    def _netrc(self, match: re.Match[str]) -> str:
        return match[0] if match[2] in ("=", ":") else match[1] + self._hide(match[2])

    def _quoted(self, match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if REDACTED in value or not self._is_literal_secret(name, value):
            return match[0]
        return match[0].replace(
            f"{match['quote']}{value}{match['quote']}", f"{match['quote']}{self._hide(value)}{match['quote']}"
        )

    def _called(self, match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        is_named = is_secret_name(name) and bool(re.search(r"\d", value)) and self._is_literal_secret(name, value)
        if not is_named or REDACTED in value:
            return match[0]
        return f"{match['front']}{match['quote']}{self._hide(value)}{match['quote']}"

    def _by_place(self, match: re.Match[str]) -> str:
        value = match["secret"]
        is_variable = value.startswith(("$", "{", "<")) or REDACTED in value
        return match[0] if is_variable else match["front"] + self._hide(value)

    def _value(self, match: re.Match[str]) -> str:
        if not is_secret_name(match["name"]) or not self._is_literal_secret(match["name"], match["value"]):
            return match[0]
        return match[0] if REDACTED in match["value"] else match["front"] + self._hide(match["value"])

    def _bare(self, match: re.Match[str], is_settings: bool) -> str:
        """``NAME=value`` of shells, ``name: value`` of YAML: in a program, a bare value is a variable or a type."""
        name, value = match["name"], match["value"]
        if REDACTED in value or value.startswith(("-", "=")):
            return match[0]
        is_setting = bool(re.search(r"\d", value)) and not re.fullmatch(r"[\d.,e+-]+|[A-Za-z_]\w*\.[\w.]*", value)
        is_secret = (is_secret_name(name) and is_setting) or (_may_be_key(name) and looks_random(value))
        is_variable = name.isupper() and is_secret_name(name) and "." not in value and match["close"].strip() == "="
        is_plain = is_settings and is_secret_name(name) and value.lower() not in _NOTHING
        return name + match["close"] + self._hide(value) if is_secret or is_variable or is_plain else match[0]

    def _option(self, match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if not is_secret_name(name) or REDACTED in value:
            return match[0]
        return name + match["close"] + self._hide(value)

    def _is_literal_secret(self, name: str, value: str) -> bool:
        if is_secret_name(name):
            if re.search(r"\s", value) and not re.search(r"\d", value):  # a sentence, as in prompts and help
                return False
            is_word = _words(name)[-1] in ("token", "bearer", "authorization")
            return not (
                is_word and re.fullmatch(r"[\[<|].*[\]>|]|\W+|(?:[A-Z][a-z]+){2,6}", value)
            ) and not re.fullmatch(r"[$%{<].*[}%>]|\*+|\$\w+", value)
        return _may_be_key(name) and looks_random(value)

    def arguments(self, arguments: Iterable[Any]) -> list[str]:
        """A command's arguments without the values of options such as ``--token X``, ``--api-key=X`` and ``password=X``."""
        found: list[str] = []
        is_next = False
        for argument in map(str, arguments):
            name, sign, value = argument.partition("=")
            if is_next and not argument.startswith("--"):
                found.append(self._hide(argument, learn=True))
                is_next = False
                continue
            is_option = argument.startswith("-") and len(name) < 80 and not re.search(r"\s", name)
            if sign and value and is_secret_name(name.lstrip("+")) and re.fullmatch(r"[\w.+@/-]{1,80}", name):
                found.append(f"{name}={self._hide(value, learn=True)}")
            else:
                found.append(self.text(argument))
            is_next = is_option and not sign and is_secret_name(name)
        return found

    def config(self, config: Any, name: str = "") -> Any:
        """Settings of JSON's types, nested, without the values whose names say that they are secrets."""
        if isinstance(config, Mapping):
            is_all_secret = name.lower() in ("secrets", "credentials")
            is_flat = not any(isinstance(v, (Mapping, list)) for v in config.values())
            is_secret = is_all_secret or (is_secret_name(name) and is_flat)
            if isinstance(bearer := config.get("name"), str) and "value" in config and is_secret_name(bearer):
                config = {**config, "value": self.config(config["value"], bearer)}
            return {self.text(str(k)): self.config(v, name if is_secret else str(k)) for k, v in config.items()}
        if isinstance(config, (list, tuple)):
            plain = [item for item in config if isinstance(item, str)]
            if len(plain) == len(config) and any(p.startswith("-") for p in plain):
                return self.arguments(plain)
            return [self.config(item, name) for item in config]
        if config is None or isinstance(config, bool):
            return config
        if is_secret_name(name) and not isinstance(config, float) and str(config):
            return self._hide(str(config), learn=True)
        if not isinstance(config, str):
            return config
        return self._hide(config) if _may_be_key(name) and looks_random(config) else self.text(config)


def process_redactor() -> Redactor:
    """One that knows the secrets in the environment and the arguments of this process."""
    import sys

    return Redactor([*getattr(sys, "orig_argv", ()), *sys.argv], os.environ)


def _hinted(text: str) -> Iterator[tuple[str, bool]]:
    """``text`` in parts: each line that may name a secret with the one behind it, and by themselves those between."""
    part, open_lines = "", 0
    for line in text.splitlines(keepends=True):
        lowered = line.lower()
        if any(hint in lowered for hint in _HINTS):
            open_lines = 2
        elif open_lines == 0:
            yield line, False
            continue
        part += line
        open_lines -= 1
        if open_lines == 0:
            yield part, True
            part = ""
    if part:
        yield part, True


def without_credentials(url: str) -> str:
    """An address that can still be used: the user of ``ssh://git@host`` stays, passwords and tokens go.

    Example:
        >>> without_credentials("https://me:token@example.org/a.git"), without_credentials("git@example.org:a.git")
        ('https://example.org/a.git', 'git@example.org:a.git')
    """
    scheme, sign, rest = url.partition("://")
    helper, colons, command = url.partition("::")
    if colons and re.fullmatch(r"\w+", helper):  # a helper's address may be a command
        return f"{helper}::{without_credentials(command) if sign else REDACTED}"
    if not sign:
        user, at, place = url.rpartition("@")
        return f"{user.partition(':')[0]}@{place}" if at and ":" in user and "/" not in user else url
    if scheme.lower().startswith("http"):
        rest = rest.partition("#")[0]
    place, slash, path = rest.partition("/")
    port = place.partition(":")[2]
    if "@" in path and "@" not in place and port and not port.isdigit():  # a password with a slash
        user, _, behind = rest.rpartition("@")
        place, slash, path = behind.partition("/")
        place = f"{user}@{place}"
    user, at, host = place.rpartition("@")
    name = user.partition(":")[0]
    kept = f"{name}@" if at and not scheme.lower().startswith(("http", "ftp")) else ""
    return f"{scheme}://{kept}{host}{slash}{path}"


def _is_place(value: str) -> bool:
    return value.startswith(("/", "~", "./", "http://localhost")) and "@" not in value
