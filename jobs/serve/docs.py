"""The description of the API as a page: plain HTML without scripts, made from the OpenAPI description.

The usual pages for such descriptions load scripts of third parties, which this server's policy forbids.
"""

from collections.abc import Mapping
from html import escape
from typing import Any


def make_docs(description: Mapping[str, Any]) -> str:
    """A page of all endpoints: parameters, bodies, answers."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Earshot: HTTP API</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        "<meta name='color-scheme' content='light dark'></head><body>",
        f"<h1>Earshot {escape(description['info']['version'])}: HTTP API</h1>",
        "<p>Errors are <code>{&quot;error&quot;: &quot;one line&quot;}</code> with the status that is given. Programs",
        " read <a href='/api/openapi.json'>openapi.json</a>.</p>",
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            parts += _describe(method, path, operation)
    return "".join([*parts, "</body></html>"])


def _describe(method: str, path: str, operation: Mapping[str, Any]) -> list[str]:
    lines = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation.get('description', ''))}</p>"]
    rows = [
        (parameter["name"], parameter["schema"], parameter.get("description", ""), parameter.get("required", False))
        for parameter in operation.get("parameters", ())
    ]
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        required = content["schema"].get("required", ())
        rows += [
            (f"{kind}: {name}", schema, schema.get("description", ""), name in required)
            for name, schema in content["schema"].get("properties", {}).items()
        ]
    if rows:
        lines.append("<table><tr><th align='left'>name</th><th align='left'>type</th><th></th></tr>")
        for name, schema, said, is_required in rows:
            said = f"{said}{'' if not is_required else ' Required.'}"
            lines.append(
                f"<tr><td><code>{escape(name)}</code></td><td>{escape(_name_type(schema))}</td><td>{escape(said)}</td></tr>"
            )
        lines.append("</table>")
    answers = [f"{status} {answer.get('description', '')}" for status, answer in operation["responses"].items()]
    return [*lines, f"<p>Answers: {escape('; '.join(answers))}</p>"]


def _name_type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_name_type(each) for each in schema["anyOf"] if each.get("type") != "null")
    name = str(schema.get("type", "any"))
    if name == "array":
        return f"list of {_name_type(schema['items'])}"
    return f"{name}, by default {schema['default']}" if schema.get("default") not in (None, "") else name
