"""Every member of the services' requests in which a tenant can send an id, from the OpenAPI documents."""

import re

# Bodies of tenants: naming another project's resource here must be refused.
IDENTIFIER = re.compile(r"(_id|_ids|_uuid|_uuids|Ref|_ref|_volid|^uuid|^port|volumeId|serverId|security_groups|^group|_host|_type|^key_name|^owner|^member)$")


def leaves(schema, path=()):
    """Names of the leaves of a JSON schema, as paths; items of lists have no separate name."""
    for choice in schema.get("oneOf", []):
        yield from leaves(choice, path)
    for name, inner in schema.get("properties", {}).items():
        yield from leaves(inner, path + (name,))
    if isinstance(schema.get("items"), dict):
        yield from leaves(schema["items"], path)
    if path and not schema.get("properties") and schema.get("type") not in ("object", "null", "boolean", "integer", "number", "array"):
        yield path


def places(document):
    """(METHOD PATH, member.member) of each identifier in a body that tenants may send."""
    found = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
            rule = operation.get("x-policy-default", "")
            if not body or rule in ("rule:admin_required", "role:admin", "rule:admin_or_service", "!"):
                continue
            for leaf in leaves(body):
                inner = len(leaf) > 2 and IDENTIFIER.search(leaf[-2]) and leaf[-1] == "name"
                if IDENTIFIER.search(leaf[-1]) or inner or (len(leaf) > 2 and leaf[-1] == "id"):
                    found.add((f"{method.upper()} {path}", ".".join(leaf)))
    return found


def fill(template, names):
    """The template with each `<name>` replaced."""
    if isinstance(template, dict):
        return {key: fill(value, names) for key, value in template.items()}
    if isinstance(template, list):
        return [fill(value, names) for value in template]
    if isinstance(template, str) and template.startswith("<") and template.endswith(">"):
        return names[template[1:-1]]
    return template


def sample(schema):
    """The smallest valid value for a schema."""
    if "oneOf" in schema:
        return sample(schema["oneOf"][0])
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        names = schema.get("required") or (list(properties)[:1] if len(properties) == 1 else [])
        return {name: sample(properties[name]) for name in names if name in properties}
    if kind == "array":
        return [sample(schema.get("items", {}))] * schema.get("minItems", 0)
    if kind in ("integer", "number"):
        return max(schema.get("minimum", 1), 1)
    if kind == "boolean":
        return False
    if schema.get("format") == "uuid":
        return "12345678-1234-4234-8234-123456789abc"
    return "x" * max(schema.get("minLength", 1), 1)
