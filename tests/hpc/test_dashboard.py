"""A job on a real Slurm as the dashboard shows it: what it prints while it prints it, and its files to take home."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from tests.hpc.slurm import Slurm
from tests.web.browsing import CHROMIUM, XSS, chromium, go, opened
from tests.web.served import served

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
HPC = "/apis/hpc.minik8s.io/v1/namespaces/default"


@pytest.mark.timeout(180)
def test_a_job_is_watched_and_its_results_are_taken_home(slurm: Slurm) -> None:
    with served("--dashboard-write") as site, chromium() as browser:
        site.api("POST", "/api/v1/namespaces/default/secrets", slurm.login())
        site.api("POST", f"{HPC}/hpcclusters", slurm.cluster())
        program = [
            f"echo 'begun {XSS}'",
            "echo aside >&2",
            "sleep 6",
            "mkdir -p out",
            "echo made > out/a.txt",
            "echo over",
        ]
        spec = {"run": program, "output": {"artifacts": ["out/a.txt"]}}
        site.api("POST", f"{HPC}/gpujobs", {"metadata": {"name": "prints"}, "spec": spec})
        with opened(browser, site, site.admin()) as page:
            go(page, "hpcclusters")
            page.wait_for_selector(".row:has-text('lab'):has-text('Reachable')")
            go(page, "gpujobs")
            page.wait_for_selector(".row:has-text('prints'):has-text('Running')", timeout=60_000)
            go(page, "gpujobs", "default", "prints", "output")
            page.wait_for_selector(f".screen:has-text('begun {XSS}')")
            page.wait_for_selector(".screen:has-text('over')")
            page.wait_for_selector("text=The job has ended.")
            page.select_option(".tools select", "stderr")
            page.wait_for_selector(".screen:has-text('aside')")
            page.click(".tabs a:has-text('Overview')")
            page.wait_for_selector(".fields dd:has-text('Succeeded')")
            page.click(".tabs a:has-text('Results')")
            page.wait_for_selector(".row:has-text('job.out')")
            with page.expect_download() as taken:
                page.click(".row a:has-text('out/a.txt')")
            assert (taken.value.suggested_filename, Path(taken.value.path()).read_text()) == ("a.txt", "made\n")
            with page.expect_download() as taken:
                page.click("text=All of it (zip)")
            packed = zipfile.ZipFile(io.BytesIO(Path(taken.value.path()).read_bytes()))
            assert {"job.out", "out/a.txt"} <= {name.removeprefix("prints/") for name in packed.namelist()}
