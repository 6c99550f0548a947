"""Three agents that mend a workload, and the sandbox that runs its tests.

The Manager finds and diagnoses a failure, the Engineer writes a patch, QA tests it. They talk over
EventBridge and keep their documents in S3. They hold no monitoring code but their domain events, their
decisions, and where a case begins and ends: invocations, model calls and messages are recorded by the
monitor that wraps them.
"""
