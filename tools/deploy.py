"""`make deploy`, `make test-alert` and `make destroy`, for a real account."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "constructs"), str(ROOT / "runtime")]

import boto3  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError  # noqa: E402

from tools.preflight import (  # noqa: E402
    BUCKET,
    PARTS,
    TABLE,
    Account,
    PreflightError,
    check,
    connect,
    stack_name,
    stack_problems,
    stack_resources,
    table_deletion,
)

if TYPE_CHECKING:
    from agentops_constructs import Names
    from stacks.settings import Settings

OUT = ROOT / "build" / "deploy"
CDK = ("node", "node_modules/aws-cdk/bin/cdk")
# Any of them will do for a test; one that is in ALARM already would not mail again.
TEST_ALARMS = ("HighCost", "DeadLetters", "HighErrorRate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands and return the process's exit code."""
    options = _options(arguments)
    try:
        settings, names = _settings(options.context)
        # boto3 reads AWS_DEFAULT_REGION alone; the CDK CLI and the aws CLI know AWS_REGION too.
        account = connect(boto3.Session(region_name=os.environ.get("AWS_REGION") or None))
        print(f"account {account.account}, region {account.region}, environment {settings.environment}")
        if options.command == "deploy":
            return deploy(account, settings, names, options.context)
        if options.command == "test-alert":
            return test_alert(account, names)
        return destroy(account, names, options.context, yes=options.yes)
    except PreflightError as error:
        for line in error.args:
            print(f"error: {line}", file=sys.stderr)
        return 1
    except (ClientError, BotoCoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def deploy(account: Account, settings: Settings, names: Names, context: Mapping[str, str]) -> int:
    """Check the account, deploy every stack, and say what is left to do."""
    problems, notes = check(account, settings, names)
    for note in notes:
        print(f"note: {note}")
    if problems:
        raise PreflightError(*problems)
    print("preflight: credentials, region, bootstrap, names and model access are fine")
    OUT.mkdir(parents=True, exist_ok=True)
    outputs = OUT / f"{settings.environment}.json"
    # The app prints the monthly price as it is synthesized, before the CLI asks for approval.
    command = [*CDK, "deploy", "--all", "--outputs-file", str(outputs), *_context_arguments(context)]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        for line in stack_problems(account, names):
            print(f"error: {line}", file=sys.stderr)
        return done.returncode
    deployed = json.loads(outputs.read_text()).get(stack_name("Dashboards", settings.environment), {})
    print()
    for name, url in sorted(deployed.items()):
        print(f"{name:>25}  {url}")
    _remind(account, names)
    return 0


def test_alert(account: Account, names: Names) -> int:
    """Turn one alarm to ALARM for a moment, so that its alert takes the whole way."""
    cloudwatch = account.client("cloudwatch")
    wanted = [names.alarm(name) for name in TEST_ALARMS]
    states = {
        each["AlarmName"]: each["StateValue"]
        for each in cloudwatch.describe_alarms(AlarmNames=wanted)["MetricAlarms"]
    }
    if not states:
        raise PreflightError(f"environment {names.environment} is not deployed in {account.region}")
    quiet = next((name for name in wanted if states.get(name, "ALARM") != "ALARM"), None)
    if quiet is None:
        raise PreflightError(f"{', '.join(states)} are in ALARM already: their alerts have been sent")
    cloudwatch.set_alarm_state(
        AlarmName=quiet,
        StateValue="ALARM",
        StateReason="Test of the alert's way, by `make test-alert`; CloudWatch sets it back by itself.",
    )
    print(f"{quiet} was set to ALARM; it returns at its next evaluation, within a minute or so.")
    _remind(account, names)
    return 0


def destroy(account: Account, names: Names, context: Mapping[str, str], *, yes: bool) -> int:
    """Delete the stacks, and say what is kept and how to delete or adopt it."""
    stacks = [stack_name(part, names.environment) for part in PARTS]
    found = {stack: stack_resources(account, stack) for stack in stacks}
    existing = [stack for stack in stacks if found[stack]]
    if not existing:
        print(f"nothing of environment {names.environment} is deployed in {account.region}")
        return 0
    tables = stack_resources(account, stack_name("Monitoring", names.environment), TABLE)
    buckets = stack_resources(account, stack_name("Agents", names.environment), BUCKET)
    print(f"to be deleted: {', '.join(existing)}")
    data = [*tables.values(), *buckets.values()]
    if names.is_production:
        print(f"kept: {', '.join(data)}")
    else:
        print(f"deleted with all that is in them: {', '.join(data)}")
    if not yes and not _agreed(names.environment):
        print("nothing was deleted")
        return 1
    if not names.is_production:
        for bucket in buckets.values():
            # CloudFormation deletes no bucket that holds something.
            _empty(account, bucket)
    cloudformation = account.client("cloudformation")
    for stack in existing:
        print(f"deleting {stack} …", flush=True)
        cloudformation.delete_stack(StackName=stack)
        cloudformation.get_waiter("stack_delete_complete").wait(
            # The network interfaces of the sandbox can take 40 minutes to go.
            StackName=stack,
            WaiterConfig={"Delay": 5, "MaxAttempts": 720},
        )
    if names.is_production:
        _explain_kept(tables, buckets, context, names)
    return 0


def _explain_kept(
    tables: Mapping[str, str], buckets: Mapping[str, str], context: Mapping[str, str], names: Names
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    mapping = OUT / f"adopt-{names.environment}.json"
    mapping.write_text(json.dumps({id: {"TableName": name} for id, name in tables.items()}, indent=2) + "\n")
    stack = stack_name("Monitoring", names.environment)
    shown = mapping.relative_to(ROOT)
    command = [*CDK, "import", stack, "--resource-mapping", str(shown), *_context_arguments(context)]
    print("\nProduction keeps its data. A new deployment adopts the tables by this, and then `make deploy`:")
    print(f"  {shlex.join(command)}")
    print("To delete the data for good:")
    for table in tables.values():
        for line in table_deletion(table):
            print(f"  {line}")
    for bucket in buckets.values():
        print(f"  aws s3 rb s3://{bucket} --force")


def _remind(account: Account, names: Names) -> None:
    """Say who gets the alerts, and who still has to confirm."""
    topic = f"arn:{_partition(account.region)}:sns:{account.region}:{account.account}:{names.topic}"
    pages = account.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=topic)
    subscriptions = [each for page in pages for each in page["Subscriptions"]]
    pending = [each["Endpoint"] for each in subscriptions if "Pending" in each["SubscriptionArn"]]
    confirmed = [each["Endpoint"] for each in subscriptions if "Pending" not in each["SubscriptionArn"]]
    if confirmed:
        print(f"alerts go to {', '.join(confirmed)}")
    if pending:
        print(f"alerts do NOT reach {', '.join(pending)} yet: confirm the mail that SNS sent there")
    if not subscriptions:
        print(f"alerts reach nobody: deploy with alert_email=…, or subscribe to {topic}")


def _partition(region: str) -> str:
    return str(boto3.Session().get_partition_for_region(region))


def _empty(account: Account, bucket: str) -> None:
    s3 = account.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": each["Key"]} for each in page.get("Contents", [])]
        if keys:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})


def _agreed(environment: str) -> bool:
    if not sys.stdin.isatty():
        raise PreflightError("nobody is there to ask: add --yes")
    return input(f"Type the environment's name ({environment}) to go on: ").strip() == environment


def _settings(context: Mapping[str, str]) -> tuple[Settings, Names]:
    from agentops_constructs import Names
    from stacks.settings import Settings, SettingsError

    try:
        settings = Settings.from_context(
            {**json.loads((ROOT / "cdk.json").read_text())["context"], **context}
        )
    except SettingsError as error:
        raise PreflightError(*error.args) from None
    return settings, Names(settings.environment, settings.dashboard_suffix)


def _context_arguments(context: Mapping[str, str]) -> list[str]:
    return [part for key, value in context.items() for part in ("-c", f"{key}={value}")]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/deploy.py", description=__doc__)
    parser.add_argument("command", choices=("deploy", "test-alert", "destroy"))
    parser.add_argument("-c", "--context", metavar="KEY=VALUE", action=_Pairs, default={})
    parser.add_argument("--yes", action="store_true", help="destroy without asking")
    return parser.parse_args(arguments)


class _Pairs(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any
    ) -> None:
        key, equals, value = str(values).partition("=")
        if not equals or not key:
            parser.exit(2, f"error: context {values}: expected KEY=VALUE, such as {key or 'alert_email'}=…\n")
        namespace.context = {**namespace.context, key: value}


if __name__ == "__main__":
    sys.exit(main())
