"""What goes wrong in a state, by the Amazon States Language's own names."""

from __future__ import annotations

ALL = "States.ALL"
BRANCH_FAILED = "States.BranchFailed"
DATA_LIMIT = "States.DataLimitExceeded"
HEARTBEAT_TIMEOUT = "States.HeartbeatTimeout"
INTRINSIC_FAILURE = "States.IntrinsicFailure"
NO_CHOICE_MATCHED = "States.NoChoiceMatched"
PARAMETER_PATH_FAILURE = "States.ParameterPathFailure"
PERMISSIONS = "States.Permissions"
RESULT_PATH_MATCH_FAILURE = "States.ResultPathMatchFailure"
RUNTIME = "States.Runtime"
TASK_FAILED = "States.TaskFailed"
TIMEOUT = "States.Timeout"

UNCATCHABLE = (DATA_LIMIT, RUNTIME)  # which States.ALL and States.TaskFailed do not mean


class StateError(Exception):
    """A state fails with `error`, a name of the language or of one's own, and `cause`, a sentence for people."""

    def __init__(self, error: str, cause: str = "") -> None:
        super().__init__(f"{error}: {cause}" if cause else error)
        self.error = error
        self.cause = cause


def means(names: list[str], error: str) -> bool:
    """Whether the `ErrorEquals` of a Retrier or Catcher is about `error`."""
    if error in names or (error == HEARTBEAT_TIMEOUT and TIMEOUT in names):  # one of the two that Timeout is for
        return True
    if error in UNCATCHABLE:
        return False
    return ALL in names or (TASK_FAILED in names and error not in (TIMEOUT, HEARTBEAT_TIMEOUT))
