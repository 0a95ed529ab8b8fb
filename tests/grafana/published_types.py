"""Check the dashboards against the types that Grafana publishes for TypeScript.

    make types

Needs npm, which fetches ``@grafana/schema`` and the compiler beside the servers. Its
enumerations are turned into unions of their values first, since a JSON file can hold
only those.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator

from tests.grafana.dashboards import FILES
from tests.servers import ROOT

PACKAGES = ("@grafana/schema@11.6.0", "typescript@5.9.3")
PANEL_TYPES = {
    "bargauge": "bargauge/panelcfg/x/BarGaugePanelCfg",
    "heatmap": "heatmap/panelcfg/x/HeatmapPanelCfg",
    "stat": "stat/panelcfg/x/StatPanelCfg",
    "state-timeline": "statetimeline/panelcfg/x/StateTimelinePanelCfg",
    "table": "table/panelcfg/x/TablePanelCfg",
    "timeseries": "timeseries/panelcfg/x/TimeSeriesPanelCfg",
}
# What a stat and a bar gauge have of their own for each field: nothing.
WITH_FIELDS = PANEL_TYPES.keys() - {"bargauge", "stat"}
ENUMERATION = re.compile(
    r"(export )?(?:declare )?(?:const )?enum (\w+) \{([^}]*)\}", re.DOTALL
)
OPTIONS = {
    "module": "esnext",
    "moduleResolution": "bundler",
    "noEmit": True,
    "paths": {"@grafana/schema": ["./schema/index.d.ts"]},
    "skipLibCheck": True,
    "strict": True,
    "target": "es2022",
}


def main() -> int:
    """Return 0 if the types accept all dashboards; say where they do not."""
    if not shutil.which("npm"):
        print("npm is missing; on Debian: apt-get install npm", file=sys.stderr)
        return 1
    folder = ROOT / os.environ.get("HAKGAL_SERVERS", ".servers") / "grafana-types"
    folder.mkdir(parents=True, exist_ok=True)
    install = "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix"
    subprocess.run([*install, folder, *PACKAGES], check=True)
    modules, schema = folder / "node_modules", folder / "schema"
    shutil.rmtree(schema, ignore_errors=True)
    shutil.copytree(modules / "@grafana" / "schema" / "dist" / "esm", schema)
    for file in schema.rglob("*.d.ts"):
        file.write_text(ENUMERATION.sub(_union, file.read_text()))
    lines = list(_program())
    (folder / "dashboards.ts").write_text("\n".join(lines))
    config = {"compilerOptions": OPTIONS, "files": ["dashboards.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    compile_it = modules / ".bin" / "tsc", "--project", folder, "--pretty", "false"
    done = subprocess.run(compile_it, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        place = re.match(r".*dashboards\.ts\((\d+),\d+\): (.*)", line)
        name = lines[int(place[1]) - 1].split("*/")[0][3:] if place else ""
        print(f"{name}: {place[2]}" if place else line, file=sys.stderr)
    if done.returncode == 0:
        print(f"{len(FILES)} dashboards fit {PACKAGES[0]}")
    return done.returncode


def _union(enumeration: re.Match[str]) -> str:
    values = re.findall(r'=\s*("[^"]*"|-?\d+)', enumeration[3])
    return f"{enumeration[1] or ''}type {enumeration[2]} = {' | '.join(values)};"


def _program() -> Iterator[str]:
    """Yield a constant a line, each with the type that it has to fit."""
    dashboard = "./schema/raw/dashboard/x/dashboard_types.gen"
    yield f"import type {{Dashboard, Panel}} from '{dashboard}';"
    for name, path in PANEL_TYPES.items():
        types = f"./schema/raw/composable/{path}_types.gen"
        yield f"import type * as {name.replace('-', '_')} from '{types}';"
    for file in FILES:
        content = json.loads(file.read_text())
        panels = content.pop("panels")
        # Of these the types know only what is common to all data sources.
        del content["annotations"], content["templating"]
        yield _constant(file.stem, "Dashboard", content)
        for panel in panels:
            where = f"{file.stem}/{panel['title']}"
            kind = panel["type"].replace("-", "_")
            options, defaults = panel.pop("options"), panel["fieldConfig"]["defaults"]
            # Grafana 9.4 asks for it; later ones have "mode".
            if kind == "heatmap":
                del options["tooltip"]["show"]
            custom = defaults.pop("custom", {})
            yield _constant(where, "Panel", panel)
            yield _constant(where, f"{kind}.Options", options)
            if panel["type"] in WITH_FIELDS:
                yield _constant(where, f"{kind}.FieldConfig", custom)


def _constant(where: str, kind: str, value: object) -> str:
    return f"/* {where} */ ((_: Partial<{kind}>) => _)({json.dumps(value)});"


if __name__ == "__main__":
    sys.exit(main())
