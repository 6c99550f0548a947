"""The case file: what the agents found and made, as JSON in S3.

Events come at least once, and Lambda tries a failed invocation again. So each step is filed under a name of
its own, and the first invocation to file it owns it: only the owner hands over. The owner's own later tries
(they keep the request id) find the document and go on from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import clients

if TYPE_CHECKING:
    from agentops_monitoring import AgentOpsMonitor

_OWNER = "request_id"
_ENDED = "ended.json"


@dataclass(frozen=True, slots=True)
class CaseFile:
    """Documents that belong together.

    Parameters
    ----------
    prefix
        Where in the bucket.
    request_id
        Of the invocation that works on it.
    """

    prefix: str
    request_id: str

    @classmethod
    def of(cls, case: str, request_id: str) -> CaseFile:
        """Return the file of a case."""
        return cls(f"cases/{quote(case, safe='')}", request_id)

    def key(self, name: str) -> str:
        """Return a document's key in the bucket."""
        return f"{self.prefix}/{name}"

    def read(self, name: str) -> dict[str, Any] | None:
        """Return a document, or None when nobody has filed it."""
        client = clients.s3()
        try:
            body = client.get_object(Bucket=_bucket(), Key=self.key(name))["Body"].read()
        except client.exceptions.NoSuchKey:
            return None
        document: dict[str, Any] = json.loads(body)
        return document

    def file(self, name: str, document: Mapping[str, Any]) -> bool:
        """File a document unless it is there; True when it is this invocation's own."""
        from botocore.exceptions import ClientError

        body = json.dumps({_OWNER: self.request_id, **document}, ensure_ascii=False).encode()
        try:
            clients.s3().put_object(
                Bucket=_bucket(),
                Key=self.key(name),
                Body=body,
                ContentType="application/json",
                IfNoneMatch="*",
            )
        except ClientError as error:
            # 412: it is there. 409: another writer is at it right now, and S3 lets one of them win.
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (409, 412):
                raise
            return self.owns(self.read(name))
        return True

    def owns(self, document: Mapping[str, Any] | None) -> bool:
        """Tell whether a document is from this invocation or an earlier try of it."""
        return document is not None and document.get(_OWNER) == self.request_id

    def ended(self) -> bool:
        """Tell whether the case has ended; whatever still comes for it is late or a duplicate."""
        return self.read(_ENDED) is not None

    def end(self, monitor: AgentOpsMonitor, *, completed: bool, reason: str, **fields: Any) -> bool:
        """End the case, if it has not ended; True when this call did it.

        The mark comes first: a crash right between mark and event loses the end, where the other order could
        end it twice.
        """
        if self.ended() or not self.file(_ENDED, {"completed": completed, "reason": reason}):
            return False
        if completed:
            monitor.complete_workflow(reason=reason, **fields)
        else:
            monitor.fail_workflow(reason=reason, **fields)
        return True


def _bucket() -> str:
    return os.environ["EVIDENCE_BUCKET"]
