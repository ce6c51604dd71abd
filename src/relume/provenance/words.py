"""What a run's provenance says, in a few words for people."""

from __future__ import annotations

from relume.provenance.record import Code, Machine, Segment, SourceTree
from relume.text import counted, printable, size


def code_line(segment: Segment) -> str:
    """The code in one line: branch, commit and how much differed from it."""
    code = segment.code
    if code is None:
        why = next((part for part in segment.missing if part.startswith("code")), "code")
        return f"not kept{why.removeprefix('code')}"
    parts = [tree_line(tree) for tree in code.trees[:1]]
    if code.notebook is not None:
        parts.append(counted(code.notebook.cells, "cell"))
    if len(code.trees) > 1:
        parts.append(f"{counted(len(code.trees) - 1, 'other folder')}")
    return printable("; ".join(parts) or "no script of the user's own", 300)


def tree_line(tree: SourceTree) -> str:
    """A tree in one line."""
    if not tree.is_git:
        text = f"{counted(len(tree.files), 'file')} outside of git"
        return f"{text} ({tree.problem})" if tree.problem else text
    name = tree.branch or "detached head"
    text = f"{name} {tree.commit[:10]}" if tree.commit else f"{name}, no commit yet"
    changed = len(tree.files) + len(tree.deleted) + len(tree.changed_but_left_out())
    untracked = sum(file.kind != "modified" and file.kind != "added" for file in tree.files)
    if changed:
        own = [counted(changed - untracked, "changed file")] if changed > untracked else []
        own += [counted(untracked, "file that git does not have", "files that git does not have")] if untracked else []
        text += " with " + " and ".join(own)
    elif tree.problem:
        text += f", {tree.problem}"
    else:
        text += ", clean"
    return text


def code_lines(code: Code) -> list[str]:
    """The code in full, but for the patch: trees, files, and what was left out."""
    lines = [f"script {code.script}"] if code.script else []
    for tree in code.trees:
        lines += ["", f"{tree.path}", f"  {tree_line(tree)}"]
        lines += [f"  commit {tree.commit}"] if tree.commit else []
        lines += [f"  remote {tree.remote}"] if tree.remote else []
        lines += [f"  {counted(tree.ahead, 'commit')} ahead of {tree.upstream}"] if tree.ahead else []
        lines += [f"  note: {tree.problem}"] if tree.problem else []
        for file in tree.files:
            notes = [f"{counted(file.redacted, 'secret')} taken out"] if file.redacted else []
            notes += ["written after the process began"] if file.changed_after_start else []
            lines.append(
                f"  {file.kind:<10} {file.path}  {size(file.size_bytes)}{'  (' + ', '.join(notes) + ')' if notes else ''}"
            )
        lines += [f"  {'deleted':<10} {path}" for path in tree.deleted]
        for entry in tree.left_out:
            how_large = "" if entry.size_bytes is None else f"  {size(entry.size_bytes)}"
            lines.append(f"  {'not kept':<10} {entry.path}{how_large}  ({entry.kind}: {entry.why})")
        lines += (
            [f"  and {counted(tree.more_left_out, 'more file')} that git does not track"] if tree.more_left_out else []
        )
    if code.notebook is not None:
        lines += [
            "",
            f"{counted(code.notebook.cells, 'cell')} as executed{', of ' + code.notebook.path if code.notebook.path else ''}",
        ]
    lines += [f"note: {code.problem}"] if code.problem else []
    return [printable(line, 1000) for line in lines[not lines[:1] or not lines[0] :]]


def machine_line(machine: Machine | None) -> str:
    """The machine in one line."""
    if machine is None:
        return ""
    parts = [machine.host, machine.cpu, f"{counted(machine.cores, 'core')}" if machine.cores else ""]
    parts.append(size(machine.memory_bytes) if machine.memory_bytes else "")
    names = [str(gpu.get("name", "GPU")) for gpu in machine.gpus]
    parts += [f"{names.count(name)} x {name}" for name in dict.fromkeys(names)]
    parts += [f"driver {machine.driver}"] if machine.driver else []
    return printable(", ".join(part for part in parts if part), 300)


def data_lines(segment: Segment) -> list[str]:
    """Each dataset in one line."""
    found = []
    for facts in segment.datasets:
        length = "" if facts.length is None else f", {counted(facts.length, 'sample')}"
        found.append(printable(f"{facts.type.rpartition('.')[2]}{length}, fingerprint {facts.fingerprint[:12]}", 200))
    return found
