"""What others' rule books say of the templates: cfn-lint, cdk-nag, and the CDK's own validator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import EVERYTHING, NO_BUNDLING

# The CDK itself has each function depend on its role, which the function's reference to it implies.
LINT_IGNORED = "W3005"

NAG = """
import sys
sys.path[:0] = [".", "constructs", "runtime"]
from aws_cdk import Stack, Validations
from aws_cdk.aws_s3 import Bucket
from cdk_nag import AwsSolutionsChecks
from stacks.application import build
application = build()
Validations.of(application.app).add_plugins(AwsSolutionsChecks(application.app))
Bucket(Stack(application.app, "Control"), "Bad")
application.app.synth()
"""


@pytest.fixture(scope="module")
def assembly(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole app, and a stack beside it that breaks rules, seen by cdk-nag and the validator."""
    out = tmp_path_factory.mktemp("assembly")
    environment = {
        **os.environ,
        "CDK_OUTDIR": str(out),
        "CDK_CONTEXT_JSON": json.dumps(
            {
                # The recommended flags, of which some turn the validator's rules on.
                **json.loads((root / "cdk.json").read_text())["context"],
                **NO_BUNDLING,
                "environment": "staging",
                **EVERYTHING,
            }
        ),
    }
    environment.pop("CDK_VALIDATION", None)
    subprocess.run(
        [sys.executable, "-c", NAG], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    return out


@pytest.mark.validator
def test_cdk_nag_and_the_validator_find_the_control_and_nothing_of_ours(assembly: Path) -> None:
    report = json.loads((assembly / "validation-report.json").read_text())
    found = {
        (plugin["pluginName"], violation["ruleName"], construct["constructPath"])
        for plugin in report["pluginReports"]
        for violation in plugin["violations"]
        for construct in violation["violatingConstructs"]
    }

    assert {rule for _, rule, path in found if path.startswith("Control/")} >= {
        "AwsSolutions-S1",
        "AwsSolutions-S10",
    }
    assert {each for each in found if not each[2].startswith("Control/")} == set()


@pytest.mark.validator
def test_cfn_lint_finds_nothing(assembly: Path) -> None:
    templates = sorted(map(str, assembly.glob("AgentOps-*.template.json")))
    assert len(templates) == 4
    done = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--ignore-checks", LINT_IGNORED, "--", *templates],
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.stdout == ""
    assert done.returncode == 0
