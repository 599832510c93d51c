"""The statements of a request, read from PostgreSQL's log, and converted to a script for pgbench."""

import re
import time

LITERAL = re.compile(r"'(?:[^']|'')*'")


def capture(cloud, action, telling: str) -> list[str]:
    """The statements of the session that did `action`, in order, with their values in place: the one with a statement
    that `telling` (a regular expression) matches. Others work at the same time: audits, heartbeats."""
    log = cloud.state / "log" / "postgres.log"
    for text in ("ALTER SYSTEM SET log_line_prefix = '%p|'", "ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"):
        cloud.sql(text, database=cloud.superuser)
    time.sleep(1)
    try:
        start = log.stat().st_size
        action()
        time.sleep(0.3)
        end = log.stat().st_size
    finally:
        for text in ("ALTER SYSTEM RESET log_line_prefix", "ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()"):
            cloud.sql(text, database=cloud.superuser)
    with log.open("rb") as file:
        file.seek(start)
        written = file.read(end - start).decode(errors="replace")
    sessions: dict[str, list[str]] = {}
    for entry in re.split(r"\n(?=\d+\|)", "\n" + written):
        match = re.match(r"(?:\n)?(\d+)\|(LOG|DETAIL):\s+(.*)", entry, re.DOTALL)
        if not match:
            continue
        process, kind, text = match.groups()
        statements = sessions.setdefault(process, [])
        if kind == "LOG":
            found = re.match(r"(?:execute [^:]*|statement): (.*)", text, re.DOTALL)
            if found:
                statements.append(found.group(1).strip())
        elif statements and text.lower().startswith("parameters:"):
            statements[-1] = with_values(statements[-1], text.split(":", 1)[1])
    return next(statements for statements in sessions.values() if any(re.search(telling, text) for text in statements))


def with_values(statement: str, parameters: str) -> str:
    """Puts the logged values (`$1 = '…', $2 = NULL`) where the statement names them."""
    values = {
        int(number): "NULL" if text == "NULL" else text
        for number, text in re.findall(r"\$(\d+) = (NULL|'(?:[^']|'')*')", parameters)
    }
    return re.sub(r"\$(\d+)", lambda match: values[int(match.group(1))], statement)


def without_colons(literal) -> str:
    """pgbench treats a colon before a name as a variable, also inside of a literal."""
    text = literal.group(0)
    return text if ":" not in text else "E" + text.replace("\\", "\\\\").replace(":", "\\x3a")


def transaction(statements: list[str], telling: str) -> list[str]:
    """The last transaction, from BEGIN to COMMIT, with a statement that `telling` (a regular expression) matches."""
    at = max(index for index, text in enumerate(statements) if re.search(telling, text))
    begin = max(index for index in range(at) if statements[index].upper().startswith("BEGIN"))
    end = next(index for index in range(at, len(statements)) if statements[index].upper().startswith("COMMIT"))
    return statements[begin : end + 1]


def inserted(chosen: list[str]) -> list[str]:
    """The ids of a transaction's new servers and workflows."""
    found = re.findall(r"INSERT INTO (?:servers|workflows)\b.*?VALUES\s*\(\s*'([0-9a-f-]{36})'", "\n".join(chosen), re.DOTALL)
    return list(dict.fromkeys(found))


def pgbench_script(chosen: list[str], fresh: list[str]) -> str:
    """A transaction as a script, with new ids in place of `fresh` in each run."""
    lines = []
    for index, value in enumerate(fresh):
        lines.append(f"\\set fresh{index} random(1, 9000000000000000000)")
        replacement = f"(lpad(to_hex(:fresh{index}::bigint), 32, '0')::uuid)"
        chosen = [text.replace(f"'{value}'", replacement) for text in chosen]
    chosen = [LITERAL.sub(without_colons, text) for text in chosen]
    return "\n".join(lines + [" ".join(text.split()) + ";" for text in chosen]) + "\n"
