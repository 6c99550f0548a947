"""Where code that a model wrote runs: a function with no permission and no route out."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import Duration, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from agentops_constructs import AgentSource, bundling
from agentops_constructs.plane_base import PlaneBase
from agentops_constructs.roles import NETWORK_INTERFACES, allow, allow_network_interfaces, function_role
from agentops_constructs.validation import acknowledge

from .team import SANDBOX


class Sandbox(Construct):
    """A plain function in isolated subnets that can write its own logs and nothing else.

    Lambda itself creates the function's network interfaces with the function's role, on resources that exist
    only then; that is denied to the code in the function:
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
    """

    def __init__(self, scope: Construct, id: str, *, monitoring: PlaneBase, source: Path) -> None:
        super().__init__(scope, id)
        name = monitoring.names.function(SANDBOX)
        vpc = ec2.Vpc(
            self,
            "Isolated",
            max_azs=2,
            nat_gateways=0,
            create_internet_gateway=False,
            # Emptied by a custom resource otherwise; nothing here is in the default group.
            restrict_default_security_group=False,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="Sandbox", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=26
                )
            ],
        )
        acknowledge(vpc, "AwsSolutions-VPC7", "no traffic can enter or leave it, so a flow log stays empty")
        nothing = ec2.SecurityGroup(
            self, "NoTraffic", vpc=vpc, description="No traffic, in or out", allow_all_outbound=False
        )
        log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/lambda/{name}",
            retention=monitoring.log_retention,
            removal_policy=monitoring.log_removal_policy,
        )
        role = function_role(self, "Role", log_group)
        function_arn = Stack.of(self).format_arn(service="lambda", resource=f"function:{name}")
        allow_network_interfaces(role)
        role.add_to_policy(
            iam.PolicyStatement(
                effect=iam.Effect.DENY,
                actions=list(NETWORK_INTERFACES),
                resources=["*"],
                conditions={"ArnEquals": {"lambda:SourceFunctionArn": function_arn}},
            )
        )
        self.function = lambda_.Function(
            self,
            "Function",
            function_name=name,
            description="Runs a project's tests on patched source",
            runtime=bundling.RUNTIME,
            architecture=lambda_.Architecture.ARM_64,
            handler="agents.sandbox.handler",
            code=bundling.code(self, bundling.agent_bundle(AgentSource(source, package="agents"))),
            role=role,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            # Twice what the tests may take: what takes more fails by itself, and ends no environment.
            memory_size=1024,
            timeout=Duration.seconds(60),
            vpc=vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            security_groups=[nothing],
        )
        monitoring.track_compute(
            self, "Lines", function=self.function, log_group=log_group, agent_name=SANDBOX
        )

    def allow_invoke(self, role: iam.IRole) -> None:
        """Allow a role to run code here."""
        allow(role, ["lambda:InvokeFunction"], [self.function.function_arn])
