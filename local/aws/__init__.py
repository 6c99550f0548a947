"""The embedded AWS: MiniStack on loopback, and what our templates need beyond it.

====================  =========================================================================
``__main__``          start, stop, the ready line
``sweep``             no process and no file left behind, however a server ends
``gateway``           the HTTP entry: MiniStack's, plus ``/_local/*``
``runtime_api``       one execution environment: a process of AWS's runtime interface client
``bootstrap``         what that process runs: the client, its log records in pieces
``records``           what MiniStack keeps of a function
``functions``         pools of environments, code, variables, AWS/Lambda metrics
``invocation_log``    Lambda's own log lines, the report line among them
``invocations``       asynchronous invocations: retries, dead letters, destinations
``streams``           streams into functions
``sources``           what they read: tables' streams, shards of Kinesis
``logs``              log groups: EMF, subscription filters, the term patterns
``metrics``           data points, GetMetricData
``metric_math``       the expressions that our dashboards and alarms use: arithmetic, FILL
``alarms``            evaluation, state-change events
``faults``            calls and deliveries that go wrong to order, seeded
``permissions``       each call of a function against its role, and the record of them
``models``            Bedrock's models: calls passed on to a server
``dynamodb``          strict conditions and updates, expiry that the stream tells of
``kept_ready``        provisioned concurrency, listed
``limits``            what EventBridge, dashboards and Lambda refuse by size or form
``around``            how ours is put around a function of MiniStack's
``templates``         what a template may say (``served.toml``), and what MiniStack leaves out
``notifications``     the mailbox of SNS e-mail subscriptions
``clock``             the time that alarms and schedules see
====================  =========================================================================

MiniStack's private names are used where it has no public way, so its version is pinned: see ``gateway``.
"""
