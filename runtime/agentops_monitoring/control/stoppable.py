"""Which agents can be stopped, and by which alarms: one SSM parameter an agent, in the agent's own stack.

So the plane finds the agents of any stack and of any app, and nothing ties their deployments together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

TAG = "agentops:stoppable"
"""On the function and on the queue of such an agent, with the environment as its value: what the role of the
function `stop` goes by."""


def path(environment: str) -> str:
    """Return the path of the parameters of an environment."""
    return f"/agentops/{environment}/stoppable"


class Target(NamedTuple):
    """An agent that can be stopped."""

    agent: str
    function: str
    """Its name."""
    queue_url: str
    """Where its events go that Lambda gives up on."""
    alarms: tuple[str, ...]
    """Names of the alarms that stop it."""
    failed_alarm: str
    """Name of the alarm on its queue; silent while the agent is stopped, for then its queue is to fill."""

    @classmethod
    def of(cls, agent: str, text: str) -> Target:
        """Return what a parameter's value says.

        Raises
        ------
        ValueError
            It says something else.
        """
        try:
            found = json.loads(text)
            return cls(
                agent, found["function"], found["queue"], tuple(found["alarms"]), found["failed_alarm"]
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the parameter of agent {agent} is not ours: {error!r}") from None


def targets(ssm: Any, environment: str) -> Iterator[Target]:
    """Yield the agents of an environment that can be stopped.

    Parameters
    ----------
    ssm
        A client of Systems Manager.
    """
    pages = ssm.get_paginator("get_parameters_by_path").paginate(Path=path(environment))
    for page in pages:
        for parameter in page["Parameters"]:
            yield Target.of(parameter["Name"].rpartition("/")[2], parameter["Value"])
