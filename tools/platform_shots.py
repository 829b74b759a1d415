"""Takes the pictures of docs/platform.md: `python tools/platform_shots.py FOLDER`.

FOLDER is one whose line has run: a workspace, or the project after `make demo`. The platform is started there
if it does not run, a retrain is asked for (it finds nothing to train), and a headless Chromium looks at the
deployments, at the run with its artifacts and at the version in MLflow. Reduced to 96 colours.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "live")]

from browser import chromium  # noqa: E402

from flows import platform, prefect_api, publishing, servers  # noqa: E402

SIZE = {"width": 1280, "height": 860}
WAIT_S = 600.0
COLOURS = 96
SHOWS = "text => document.body.innerText.includes(text)"


def retrained(api: str) -> str:
    """The id of a completed run of `retrain`."""
    run_id, deadline = prefect_api.start(api, "retrain", {"reason": "pictures"}), time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        done = {run["id"] for run in prefect_api.runs(api, ["COMPLETED"], limit=50)}
        if run_id in done:
            return run_id
        if failed := [run for run in prefect_api.runs(api, ["FAILED", "CRASHED"]) if run["id"] == run_id]:
            raise SystemExit(f"the retrain did not complete: {failed[0]['state']['message']}")
        time.sleep(1.0)
    raise SystemExit(f"the retrain took longer than {WAIT_S:.0f} s")


def look(page: Any, url: str, *texts: str) -> None:
    page.goto(url)
    for text in texts:
        page.wait_for_function(SHOWS, arg=text)


def save(page: Any, name: str, out: Path) -> None:
    page.wait_for_timeout(2500)  # curves are drawn after the text is there
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(out / name, optimize=True)
    print(f"{name}: {(out / name).stat().st_size // 1024} KB")


def shoot(state: dict[str, Any], folder: Path, out: Path) -> None:
    base, api = state["prefect_url"], f"{state['prefect_url']}/api"
    run_id = retrained(api)
    version = publishing.number_of(folder, "challenger")
    with chromium() as browser:
        page = browser.new_page(viewport=SIZE)
        page.set_default_timeout(WAIT_S * 1000)
        look(page, f"{base}/deployments", "retrain", "promote")
        save(page, "prefect-deployments.png", out)
        look(page, f"{base}/runs/flow-run/{run_id}", "Completed")
        save(page, "prefect-run.png", out)
        page.get_by_text("Artifacts", exact=True).last.click()
        page.wait_for_function(SHOWS, arg="retrain-verdict")
        save(page, "prefect-artifacts.png", out)
        look(page, f"{state['mlflow_url']}/#/models/scalper/versions/{version}", "manifest.sha256")
        save(page, "mlflow-version.png", out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "img")
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    args = parser.parse_args()
    folder: Path = args.folder.resolve()
    ours = servers.state_of(folder) is None
    state = servers.up(folder, platform.Ports(args.prefect_port, args.mlflow_port))
    try:
        shoot(state, folder, args.out)
    finally:
        if ours:
            servers.down(folder)


if __name__ == "__main__":
    main()
