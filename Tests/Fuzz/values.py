"""Values for requests: valid for a schema, invalid, and bodies that are not JSON."""

import json
import uuid

# Each represents a kind of input that some parser, database or client has misinterpreted before.
HOSTILE_TEXT = [
    "", " ", "\t", "\n", "a\nb", "\x00", "a\x00b", "\x1b[2J", "\u2028", "\u2029", "\u0085", "\ufeff", "\u202e", "\U0001f4a9", "e\u0301" * 50,
    "'", '"', "\\", "`", ";", "--", "%", "%00", "%s%n", "{}", "${x}", "$(id)", "<b>", "&amp;", "../../../etc/passwd", "file:///etc/passwd",
    "*", "^(.+)(.+)\\1\\2$", "(" * 200, "[", "null", "NULL", "None", "true", "-1", "0", "1e309", "NaN", "Infinity", "0x10", "٣", "１２",
    "2026-13-45T99:99:99Z", "9999-12-31T23:59:59Z", "0001-01-01", "0.0.0.0/0", "::/0", "::ffff:10.0.0.1", "fe80::1%eth0", "999.1.1.1", "10.0.0.1/33",
    "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "a" * 255, "a" * 256, "ä" * 255, "a" * 5000, "a," * 600, "a" * 70_000,
]
HOSTILE_NUMBERS = [0, -1, 1, 2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, 0.5, -0.0, 1e308, 1e-320]


def deep(depth, leaf=1):
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def hostile(rng, pool):
    """Any value in place of the expected one."""
    kind = rng.randrange(10)
    if kind < 4:
        return rng.choice(HOSTILE_TEXT)
    if kind < 6:
        return rng.choice(HOSTILE_NUMBERS)
    if kind == 6:
        return pool.any_id(rng)
    return rng.choice([None, True, False, [], {}, [None], [[]], {"": ""}, {"a": None}, [1] * 300, deep(31), deep(40), ["a", 1, {}]])


def fitting(schema, rng, pool, name="", depth=0):
    """A value that is valid for a JSON schema, usually with ids of existing resources."""
    if not isinstance(schema, dict) or depth > 12:
        return None
    if "oneOf" in schema:
        return fitting(rng.choice(schema["oneOf"]), rng, pool, name, depth + 1)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        return fitting_object(schema, rng, pool, depth)
    if kind == "array":
        count = min(rng.randint(max(1, schema.get("minItems", 0)), 3), schema.get("maxItems", 3))
        return [fitting(schema.get("items", {}), rng, pool, name, depth + 1) for _ in range(count)]
    if kind == "integer":
        low, high = schema.get("minimum", 0), schema.get("maximum", 100)
        return rng.choice([low, high, rng.randint(low, min(high, low + 20))])
    if kind == "number":
        return rng.choice([0, 1, 0.5])
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "string":
        return fitting_text(schema, rng, pool, name)
    return rng.choice(["a", 1, {}, []])


def fitting_object(schema, rng, pool, depth):
    required = set(schema.get("required", []))
    result = {}
    for key, inner in schema.get("properties", {}).items():
        if key in required or rng.random() < 0.3:
            result[key] = fitting(inner, rng, pool, key, depth + 1)
    if isinstance(schema.get("additionalProperties"), dict) and rng.random() < 0.5:
        result["key%d" % rng.randrange(3)] = fitting(schema["additionalProperties"], rng, pool, "", depth + 1)
    if not result and schema.get("properties"):
        key = rng.choice(sorted(schema["properties"]))
        result[key] = fitting(schema["properties"][key], rng, pool, key, depth + 1)
    return result


def fitting_text(schema, rng, pool, name):
    form = schema.get("format", "")
    if form == "uuid" or name in ("id", "uuid") or name.endswith(("_id", "Ref", "uuid")):
        return pool.id_for(name, rng)
    if "cidr" in (form, name) or name.endswith("prefix"):
        return "10.%d.%d.0/24" % (rng.randrange(256), rng.randrange(256))
    if "ip" in form or name.endswith(("ip", "ip_address", "nexthop")):
        return "10.%d.%d.%d" % (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    if "mac" in form or name == "mac_address":
        return "fa:16:3e:%02x:%02x:%02x" % (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    if "date" in form:
        return "2030-01-01T00:00:00Z"
    text = "fuzz-%d" % rng.randrange(10**6)
    return (text + "x" * schema.get("minLength", 0))[: max(1, schema.get("maxLength", 255))]


def places(value, path=()):
    """The paths of all members and elements of a document."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, path + (key,))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, path + (index,))


def mutated(document, rng, pool):
    """The document with one to three members replaced, removed, added or repeated."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        paths = [path for path in places(document) if path]
        if not paths:
            return hostile(rng, pool)
        path = rng.choice(paths)
        parent = document
        for step in path[:-1]:
            parent = parent[step]
        action = rng.randrange(6)
        if action == 0 and isinstance(parent, dict):
            del parent[path[-1]]
        elif action == 1 and isinstance(parent, dict):
            parent[rng.choice(["extra", "id", "project_id", "tenant_id", "status", "created_at", "", "a\x00", "\u2028"])] = hostile(rng, pool)
        elif action == 2 and isinstance(parent, list):
            parent.extend([parent[path[-1]]] * rng.choice([1, 2, 300]))
        else:
            parent[path[-1]] = hostile(rng, pool)
    return document


def encoded(document, rng):
    """The document as bytes; sometimes bytes that are not JSON, or JSON that parsers interpret differently."""
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raw = json.dumps(document).encode()
    odd = rng.randrange(60)
    if odd == 0:
        return raw[: rng.randrange(len(raw) + 1)]
    if odd == 1:
        return raw.replace(b'"', b'"\xff', 1)
    if odd == 2:
        return b"\xef\xbb\xbf" + raw
    if odd == 3:
        return b"[" * 100_000
    if odd == 4:
        return b'{"a":' * 5000 + b"1" + b"}" * 5000
    if odd == 5 and raw.startswith(b"{") and len(raw) > 2:
        return raw[:-1] + b"," + raw[1:]
    if odd == 6:
        return raw.replace(b":", b":NaN,", 1)
    if odd == 7:
        return raw.replace(b'"', b'"\\ud800', 1)
    if odd == 8:
        return raw + rng.choice([b"x", b"\x00", b"{}", b" " * 70_000])
    if odd == 9:
        return text.encode("utf-16")
    if odd == 10:
        return b"1" * 5000
    if odd == 11:
        return rng.randbytes(rng.randrange(300))
    return raw


class Pool:
    """Ids of resources that the fuzzer may use, by the kind in a path or member."""

    def __init__(self):
        self.kinds = {}

    def add(self, kind, value):
        values = self.kinds.setdefault(kind, [])
        if value not in values:
            values.append(value)
            del values[:-30]

    def remove(self, value):
        for values in self.kinds.values():
            if value in values:
                values.remove(value)

    def any_id(self, rng):
        values = [value for kind in sorted(self.kinds) for value in self.kinds[kind]]
        return rng.choice(values) if values else str(uuid.UUID(int=rng.getrandbits(128)))

    def id_for(self, name, rng):
        """Usually of the right kind, sometimes of another kind or of no resource."""
        kind = name.removesuffix("_id").removesuffix("_uuid")
        values = self.kinds.get(kind)
        if values and rng.random() < 0.75:
            return rng.choice(values)
        if rng.random() < 0.4:
            return self.any_id(rng)
        return str(uuid.UUID(int=rng.getrandbits(128)))
