"""Prints the dashboards as TypeScript, so that its compiler holds each part against Grafana's types."""

import json
import pathlib
import sys

FOLDER = pathlib.Path("observability/grafana/dashboards")
RAW = "./node_modules/@grafana/schema/dist/types/raw"

# The published types have enumerations where JSON has their texts, and demand what Grafana itself fills
# in where it is left out.
HELPERS = """
type Texts<T> = T extends string ? `${T}`
  : T extends number | boolean | null | undefined ? T
  : T extends (infer Item)[] ? Texts<Item>[]
  : T extends object ? { [Key in keyof T]: Texts<T[Key]> } : T;
type Some<T> = T extends (infer Item)[] ? Some<Item>[]
  : T extends object ? { [Key in keyof T]?: Some<T[Key]> } : T;
type Part<T> = Some<Texts<T>>;
"""


def main() -> None:
    dashboards = [json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))]
    panels = [panel for dashboard in dashboards for panel in dashboard["panels"]]
    shown = [panel for panel in panels if panel["type"] != "row"]
    if sys.argv[1:] == ["--spoilt"]:
        shown[0]["options"]["noSuchOption"] = True
    print(f"import type * as grafana from '{RAW}/dashboard/x/types.gen';")
    for kind in sorted({panel["type"] for panel in shown}):
        print(f"import type * as {kind} from '{RAW}/composable/{kind}/panelcfg/x/types.gen';")
    print(HELPERS)
    parts = [("grafana.Dashboard", {**dashboard, "panels": []}) for dashboard in dashboards]
    parts += [("grafana.RowPanel", panel) for panel in panels if panel["type"] == "row"]
    for panel in shown:
        kind, fields = panel["type"], dict(panel["fieldConfig"]["defaults"])
        custom = fields.pop("custom", None)
        frame = {key: value for key, value in panel.items() if key not in ("options", "targets")}
        frame["fieldConfig"] = {**panel["fieldConfig"], "defaults": fields}
        parts += [("grafana.Panel", frame), (f"{kind}.Options", panel["options"])]
        if custom:
            parts.append((f"{kind}.FieldConfig", custom))
    for number, (of, value) in enumerate(parts):
        print(f"const part{number}: Part<{of}> = {json.dumps(value)};")


main()
