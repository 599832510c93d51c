#!/usr/bin/env python3
"""Counts the OpenStack API routes that a running cloud has.

    make coverage                        # a line for each service, and the missing current routes
    make coverage SERVICE=network        # one service
    make coverage OPTIONAL=1             # also deprecated and obsolete routes and those of plugins

Reads `/openapi.json` of each service from its listener for operators and compares it with routes.tsv. A route is there when the document
has its method and path, whatever the parameters are called, and for `…/action` the action. Documents leave out what only answers 501;
lists that are always empty count. HEAD is there where GET is.
"""

import argparse
import collections
import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

ROUTES = Path(__file__).with_name("routes.tsv")
ROOT = Path(__file__).resolve().parents[2]

# Different spellings of a path in references and documents.
SPELLINGS = [
    (r"\{[^}]*\}", "{}"),
    # Block Storage's paths exist with and without the project.
    (r"^/v3/\{\}(?=/)", "/v3"),
    (r"^/v[0-9.]+(?=/.)", ""),
    # Compute's reference has the version as a parameter.
    (r"^/v[0-9.]+$", "/{}"),
    # The reference uses the singular in some places.
    ("/snapshot/", "/snapshots/"),
    # One route here for several routes in the reference.
    (r"^/os-services/(enable|disable|disable-log-reason|force-down)$", "/os-services/{}"),
    (r"^/types/default$", "/types/{}"),
    # The opposite: tags of any resource.
    (r"^/\{\}/\{\}(?=/tags)", "/networks/{}"),
]


def spelled(path):
    """The path without its version, with all parameters alike."""
    path = "/" + path.split("?")[0].strip("/")
    for pattern, replacement in SPELLINGS:
        path = re.sub(pattern, replacement, path)
    return path


def actions(schema):
    """The members that distinguish the actions of a path."""
    choices = [part for key in ("oneOf", "anyOf", "allOf") for part in schema.get(key, [])]
    return set(schema.get("properties", {})).union(*map(actions, choices))


def of_document(document):
    """All routes of an OpenAPI document: (method, path, action)."""
    found = set()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            route = (method.upper(), spelled(path))
            if route[0] == "POST" and path.endswith("/action"):
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                found.update((*route, action) for action in actions(content.get("schema", {})))
            else:
                found.add((*route, ""))
            if route[0] == "GET":
                found.add(("HEAD", route[1], ""))
    return found


class Route:
    def __init__(self, line):
        fields = line.split("\t") + [""] * 7
        self.service, self.method, self.path, self.action, self.tier, self.value, self.capability = fields[:7]

    @property
    def key(self):
        takes_action = self.method == "POST" and self.path.endswith("/action")
        return self.method, spelled(self.path), self.action if takes_action else ""

    def __str__(self):
        return " ".join(filter(None, (self.method, self.path, self.action)))


def routes():
    return [Route(line) for line in ROUTES.read_text().splitlines() if line and not line.startswith("#")]


def documents(osctl, state):
    """The running services' documents, by the service's name."""
    output = subprocess.run([osctl, "cloud", "services", "-o", "json", "--state", state], check=True, capture_output=True, text=True).stdout
    found = {}
    for service in json.loads(output)["services"]:
        # The routes of an optional service that this cloud does not have count as missing.
        if not service["is_present"]:
            continue
        with urllib.request.urlopen(f"http://127.0.0.1:{service['operator_port']}/openapi.json", timeout=30) as answer:
            found[service["name"]] = json.load(answer)
    return found


def count(documents):
    """For each service of the list: the present and the missing routes by tier."""
    have = {name: of_document(document) for name, document in documents.items()}
    result = collections.defaultdict(lambda: collections.defaultdict(lambda: ([], [])))
    for route in routes():
        is_missing = route.key not in have.get(route.service, ())
        result[route.service][route.tier][is_missing].append(route)
    return result


def share(there, missing):
    total = len(there) + len(missing)
    return f"{len(there):4} of {total:4} ({100 * len(there) // total if total else 100:3} %)"


def main():
    parser = argparse.ArgumentParser(description="How many of OpenStack's API routes a running cloud has.")
    parser.add_argument("--osctl", required=True)
    parser.add_argument("--state", required=True)
    parser.add_argument("--service")
    parser.add_argument("--optional", action="store_true")
    options = parser.parse_args()
    counted = count(documents(options.osctl, options.state))
    if options.service:
        if options.service not in counted:
            sys.exit(f"No service '{options.service}': {', '.join(counted)}")
        counted = {options.service: counted[options.service]}
    tiers = ["current", "optional"] if options.optional else ["current"]
    for name, found in counted.items():
        optional = f", {len(found['optional'][0])} of {sum(map(len, found['optional']))} optional" if "optional" in found else ""
        print(f"{name:14} {share(*found['current'])} current routes{optional}")
    there, missing = ([route for found in counted.values() for route in found["current"][index]] for index in (0, 1))
    print(f"{'together':14} {share(there, missing)}")
    for name, found in counted.items():
        groups = collections.defaultdict(list)
        for tier in tiers:
            for route in found[tier][1]:
                groups[route.capability or "other", tier, route.value].append(route)
        for (capability, tier, value), group in sorted(groups.items()):
            print(f"\n{name}: {capability} ({', '.join(filter(None, (tier, value and 'value ' + value.lower())))}; {len(group)})")
            for route in group:
                print(f"    {route}")


if __name__ == "__main__":
    main()
