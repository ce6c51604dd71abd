"""``relume push`` and ``relume pull``: bundles to other places and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relume.cli.output import Json, print_json


def push(
    bundle: Annotated[
        Path, typer.Argument(help="The .relume file, or the folder it was unpacked to.", show_default=False)
    ],
    dest: Annotated[
        str,
        typer.Argument(help="A folder, s3://bucket/folder, gs://…, sftp://…, or hf://user/name.", show_default=False),
    ],
    name: Annotated[
        str | None, typer.Option(help="What it is called there; by default as the file.", show_default=False)
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="For a repository that the hub makes.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option(help="Send everything anew; on the hub, replace what is no bundle.")] = False,
    as_json: Json = False,
) -> None:
    """Push a bundle to a folder, an object store or the Hugging Face Hub.

    Only what is not there yet travels: a push that was stopped goes on where it was, and models with one backbone share it.
    Logins are those of the clients: aws configure, gcloud, ssh, hf auth login.
    """
    from relume.share.exchange import push as do

    pushed = do(bundle, dest, name=name, private=private, force=force)
    if as_json:
        print_json(vars(pushed))
    else:
        typer.echo(pushed.text)


def pull(
    source: Annotated[
        str,
        typer.Argument(
            help="https://host/NAME.relume, s3://bucket/folder/NAME, hf://user/name[@revision], a folder, …",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The file, or a folder for it; by default NAME.relume.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Pull a bundle from a folder, a web server, an object store or the Hugging Face Hub, and verify every byte.

    Stopped in between, the same command goes on where it was; an older bundle at the place gives its bytes.
    """
    from relume.share.exchange import pull as do

    pulled = do(source, out)
    if as_json:
        print_json({**vars(pulled), "path": str(pulled.path)})
    else:
        typer.echo(pulled.text)
