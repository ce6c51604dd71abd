"""Licences by their SPDX identifiers, and what Hugging Face's hub calls them.

Sources: https://spdx.org/licenses/ and https://huggingface.co/docs/hub/repositories-licenses.
"""

from __future__ import annotations

_SPDX = (
    "0BSD", "AFL-3.0", "AGPL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause",
    "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0", "CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0",
    "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0",
    "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-1.0", "EPL-2.0", "EUPL-1.1", "EUPL-1.2", "GFDL-1.3-or-later",
    "GPL-2.0", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0", "GPL-3.0-only", "GPL-3.0-or-later", "ISC", "LGPL-2.1",
    "LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0", "LGPL-3.0-only", "LGPL-3.0-or-later", "LPPL-1.3c", "MIT", "MIT-0",
    "MPL-2.0", "MS-PL", "NCSA", "ODbL-1.0", "ODC-By-1.0", "OFL-1.1", "OSL-3.0", "PDDL-1.0", "PostgreSQL", "PSF-2.0",
    "Unlicense", "WTFPL", "Zlib",
)  # fmt: skip
_HUB = {
    "agpl-3.0", "afl-3.0", "apache-2.0", "artistic-2.0", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "ecl-2.0", "epl-1.0",
    "epl-2.0", "eupl-1.1", "eupl-1.2", "gpl-2.0", "gpl-3.0", "isc", "lgpl-2.1", "lgpl-3.0", "lppl-1.3c", "mit", "mpl-2.0",
    "ms-pl", "ncsa", "odbl", "ofl-1.1", "osl-3.0", "pddl", "postgresql", "unlicense", "wtfpl", "zlib",
}  # fmt: skip
_HUB_NAMES = {"ODbL-1.0": "odbl", "ODC-By-1.0": "odc-by", "PDDL-1.0": "pddl", "GFDL-1.3-or-later": "gfdl"}
_BY_FOLDED = {name.casefold(): name for name in _SPDX}


def spdx(licence: str) -> str:
    """The identifier as SPDX writes it; empty where it is none of the common ones.

    Example:
        >>> spdx("mit"), spdx("Apache-2.0"), spdx("ask me")
        ('MIT', 'Apache-2.0', '')
    """
    return _BY_FOLDED.get(licence.strip().casefold(), "")


def spdx_address(licence: str) -> str:
    """Where the text of a licence stands, such as ``https://spdx.org/licenses/MIT``; empty where it is not known."""
    known = spdx(licence)
    return f"https://spdx.org/licenses/{known}" if known else ""


def hub_licence(licence: str) -> str:
    """What the hub calls it; ``"other"`` where it has no name for it.

    Example:
        >>> hub_licence("CC-BY-4.0"), hub_licence("GPL-3.0-or-later"), hub_licence("ask me")
        ('cc-by-4.0', 'gpl-3.0', 'other')
    """
    known = spdx(licence)
    name = _HUB_NAMES.get(known) or known.casefold().removesuffix("-only").removesuffix("-or-later")
    return name if name in _HUB or known in _HUB_NAMES else "other"
