"""The bill of materials of the product, CycloneDX 1.5: every crate that is linked into it or builds it.

    cargo metadata --format-version 1 | sbom.py CARGO_LOCK ROOT_PACKAGE > FILE
    sbom.py --check FILE      (needs cyclonedx-python-lib with json-validation)
"""

import json
import sys
import tomllib
from urllib.parse import quote


def reachable(nodes, root):
    """The packages that the product needs: normal and build dependencies, those of tests left out."""
    found, pending = {}, [root]
    while pending:
        package = pending.pop()
        if package in found:
            continue
        needed = {
            dependency["pkg"]
            for dependency in nodes[package]["deps"]
            if any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"])
        }
        found[package] = sorted(needed)
        pending.extend(needed)
    return found


def reference(package):
    return f"{package['name']}@{package['version']}"


def purl(package):
    """The place of a package at crates.io. One of this repository has none: there its name would be a stranger's."""
    return f"pkg:cargo/{quote(package['name'])}@{quote(package['version'])}"


def component(package, checksums):
    made = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
    }
    if package["source"]:
        made["purl"] = purl(package)
    if package["license"]:
        # Before there was an expression, alternatives stood with a slash between them.
        made["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package["description"]:
        made["description"] = " ".join(package["description"].split())
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    checksum = checksums.get((package["name"], package["version"]))
    if checksum:
        made["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return made


def bill(metadata, lock, root_name):
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(id for id in metadata["workspace_members"] if packages[id]["name"] == root_name)
    checksums = {(p["name"], p["version"]): p["checksum"] for p in lock["package"] if "checksum" in p}
    needed = reachable(nodes, root)
    refs = {id: reference(packages[id]) for id in needed}
    if len(set(refs.values())) != len(refs):
        sys.exit("sbom: two packages have the same name and version")
    product = component(packages[root], checksums) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": product},
        "components": [component(packages[id], checksums) for id in sorted(needed) if id != root],
        "dependencies": [{"ref": refs[id], "dependsOn": [refs[one] for one in needed[id]]} for id in sorted(needed)],
    }


def check(path):
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with open(path, encoding="utf-8") as file:
        text = file.read()
    fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if fault is not None:
        sys.exit(f"sbom: not CycloneDX 1.5: {fault}")
    made = json.loads(text)
    foreign = [c for c in made["components"] if "hashes" in c]
    strangers = [c["name"] for c in made["components"] if ("purl" in c) != ("hashes" in c)]
    if strangers or "path+file" in text:
        sys.exit(f"sbom: with a place at crates.io and no digest, or the other way: {strangers}; or a directory is named")
    nameless = [c["name"] for c in foreign if not c.get("licenses")]
    if nameless or len(foreign) < 100:
        sys.exit(f"sbom: {len(foreign)} crates with a digest, without a licence: {nameless}")
    print(f"sbom: {len(made['components'])} components, CycloneDX 1.5, each foreign one with digest and licence")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--check"]:
        check(sys.argv[2])
    else:
        with open(sys.argv[1], "rb") as file:
            locked = tomllib.load(file)
        json.dump(bill(json.load(sys.stdin), locked, sys.argv[2]), sys.stdout, indent=1)
        print()
