"""Batches, transactions, sessions, leases and handing over, as clients see them."""

import http.client
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from tests.node.servers import Server, cluster, leader_of, wait_for

from labrys.node.api import BATCH_COUNT_MAX, DEPTH_MAX


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with cluster(tmp_path_factory.mktemp("three"), 3) as servers:
        yield servers


@pytest.fixture
def follower(three: list[Server]) -> Server:
    leader = leader_of(three)
    return next(server for server in three if server is not leader)


def once(
    server: Server, session: Any, seq: Any, path: str, body: Any, method: str = "POST"
) -> tuple[int, Any]:
    """Send a command in a session."""
    headers = {"Labrys-Session": str(session), "Labrys-Seq": str(seq)}
    with closing(http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)) as link:
        link.request(method, path, json.dumps(body), headers)
        response = link.getresponse()
        return response.status, json.loads(response.read())


def test_a_batch_answers_for_each_of_its_commands(three: list[Server]) -> None:
    for number, server in enumerate(three):
        name = f"batch-{number}"
        commands = [
            ["put", name, 1],
            ["add", name, 2],
            ["append", name, 3],
            ["cas", name, 3, [4]],
            ["txn", [["r", name, None], ["append", name, 5]]],
            ["delete", name],
            ["delete", name],
        ]
        status, body = server.ask("POST", "/v1/batch", {"commands": commands})
        assert status == 200
        results = body["results"]
        assert [set(result) for result in results[:2]] == [{"revision"}, {"revision", "value"}]
        assert results[1]["value"] == 3
        assert (results[2]["error"], results[2]["actual"]) == ("wrong-type", 3)
        assert results[4]["value"] == [["r", name, [4]], ["append", name, 5]]
        assert results[6]["error"] == "not-found"
        revisions = [result["revision"] for result in results if "revision" in result]
        assert revisions == list(range(revisions[0], revisions[0] + 5))


def test_a_batch_of_thousands_is_whole_and_in_order(three: list[Server]) -> None:
    commands = [["append", "long", number] for number in range(5000)]
    assert three[1].ask("POST", "/v1/batch", {"commands": commands})[0] == 200
    assert three[2].ask("GET", "/v1/kv/long")[1]["value"] == list(range(5000))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/batch", {"commands": []}),
        ("/v1/batch", {}),
        ("/v1/batch", None),
        ("/v1/batch", {"commands": [["get", "k"]]}),
        ("/v1/batch", {"commands": [["put", "", 1]]}),
        ("/v1/batch", {"commands": [["put", "k"]]}),
        ("/v1/batch", {"commands": [["open", 1000]]}),
        ("/v1/batch", {"commands": [["delete", "k"]] * (BATCH_COUNT_MAX + 1)}),
        ("/v1/txn", {"ops": [["x", "k", 1]]}),
        ("/v1/txn", {"ops": [["r", "", None]]}),
        ("/v1/txn", {"ops": 1}),
        ("/v1/kv/k/add", {"delta": 1.5}),
        ("/v1/kv/k/add", {"delta": 2**63}),
        ("/v1/sessions", {"ttl_ms": 1}),
        ("/v1/sessions", {"ttl": 1000}),
        ("/v1/members", {}),
        ("/v1/members", {"id": "n9"}),
        ("/v1/members", {"id": "n 9", "peer": "h:1"}),
        ("/v1/members", {"id": "n9", "peer": "nowhere"}),
        ("/v1/members", []),
        ("/v1/leader", {"transfer": 1}),
    ],
)
def test_a_bad_body_is_refused_and_says_where(follower: Server, path: str, body: Any) -> None:
    before = revision(follower)
    status, answer = follower.call("POST", path, body)
    assert (status, answer["error"], answer["definite"]) == (400, "bad-request", True)
    assert answer["message"]
    assert revision(follower) == before


def revision(server: Server) -> int:
    """That of the store as of now, whatever the server has applied."""
    return int(server.ask("POST", "/v1/txn", {"ops": []})[1]["revision"])


def test_depth_is_bounded_inside_batches_and_transactions_too(follower: Server) -> None:
    deep: Any = 1
    for _ in range(DEPTH_MAX + 1):
        deep = [deep]
    for path, body in (
        ("/v1/batch", {"commands": [["put", "k", deep]]}),
        ("/v1/txn", {"ops": [["w", "k", deep]]}),
        ("/v1/batch", {"commands": [["txn", [["w", "k", {"a": deep}]]]]}),
    ):
        assert follower.call("POST", path, body)[1]["error"] == "bad-request"


def test_a_transaction_is_atomic_and_told_op_by_op(three: list[Server]) -> None:
    ops = [["r", "tx", None], ["append", "tx", 1], ["w", "ty", 2], ["r", "ty", None]]
    status, body = three[0].ask("POST", "/v1/txn", {"ops": ops})
    assert status == 200
    assert body["results"][1:] == [["append", "tx", 1], ["w", "ty", 2], ["r", "ty", 2]]
    refused = {"ops": [["w", "tx", 0], ["append", "ty", 1]]}
    status, body = three[1].ask("POST", "/v1/txn", refused)
    assert (status, body["error"], body["actual"]) == (409, "wrong-type", 2)
    assert three[2].ask("GET", "/v1/kv/tx")[1]["value"] != 0


def test_a_transaction_that_only_reads_takes_no_place_in_the_log(three: list[Server]) -> None:
    three[0].ask("PUT", "/v1/kv/tr", {"value": 7})
    leader = leader_of(three)
    before = leader.status()["last_index"]
    for server in three:
        body = server.ask("POST", "/v1/txn", {"ops": [["r", "tr", None], ["r", "no", None]]})[1]
        assert body["results"] == [["r", "tr", 7], ["r", "no", None]]
    if leader_of(three) is leader:
        assert leader.status()["last_index"] == before


def test_a_command_sent_again_in_its_session_is_not_executed_again(three: list[Server]) -> None:
    session = three[0].ask("POST", "/v1/sessions")[1]["session"]
    answers = [retried(server, session, "/v1/kv/once/add", {"delta": 1}) for server in three * 2]
    assert all(answer == answers[0] for answer in answers)
    assert three[0].ask("GET", "/v1/kv/once")[1]["value"] == 1


def retried(server: Server, session: Any, path: str, body: Any) -> Any:
    """What the command with number 1 leads to; a session makes it safe to send it again."""

    def attempt() -> Any:
        status, answer = once(server, session, 1, path, body)
        return None if status in (502, 503, 504) else answer

    return wait_for("an answer", attempt)


def test_batches_and_transactions_count_once_too(follower: Server) -> None:
    session = follower.ask("POST", "/v1/sessions", {"ttl_ms": 60_000})[1]["session"]
    batch = {"commands": [["add", "twice", 1], ["append", "twice", 0], ["add", "twice", 1]]}
    first = once(follower, session, 1, "/v1/batch", batch)
    assert [result.get("value") for result in first[1]["results"]] == [1, None, 2]
    assert once(follower, session, 1, "/v1/batch", batch) == first
    txn = {"ops": [["r", "twice", None], ["w", "twice", 5]]}
    first = once(follower, session, 2, "/v1/txn", txn)
    assert first[1]["results"][0] == ["r", "twice", 2]
    assert once(follower, session, 2, "/v1/txn", txn) == first


def test_the_errors_of_sessions_say_whether_anything_happened(follower: Server) -> None:
    session = follower.ask("POST", "/v1/sessions")[1]["session"]
    path, body = "/v1/kv/s-errors", {"value": 1}
    assert once(follower, session, 1, path, body, "PUT")[0] == 200
    status, answer = once(follower, session, 1, path, {"value": 2}, "PUT")
    assert (status, answer["error"], answer["definite"]) == (409, "seq-reused", True)
    status, answer = once(follower, 10**15, 1, path, body, "PUT")
    assert (status, answer["error"], answer["definite"]) == (410, "session-expired", True)
    for bad in ("x", "-1", "1.5", "9" * 30, ""):
        status, answer = once(follower, bad, 1, path, body, "PUT")
        assert (status, answer["error"], answer["definite"]) == (400, "bad-request", True)


def test_half_a_session_is_refused(follower: Server) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", follower.http_port, timeout=10)) as link:
        link.request("PUT", "/v1/kv/half", b'{"value":1}', {"Labrys-Session": "1"})
        response = link.getresponse()
        assert response.status == 400
        assert "belong together" in json.loads(response.read())["message"]


def test_lease_reads_are_served_everywhere(three: list[Server]) -> None:
    three[0].ask("PUT", "/v1/kv/lease", {"value": "new"})
    for server in three:
        assert server.ask("GET", "/v1/kv/lease?consistency=lease")[1]["value"] == "new"


def test_the_leader_hands_over_to_whom_it_is_told(three: list[Server]) -> None:
    for target in [s for s in three if s is not leader_of(three)]:
        old = leader_of(three)

        def handed_over(target: Server = target) -> bool:
            status, body = target.call("POST", "/v1/leader", {"transfer": target.name})
            return status == 200 and body == {"leader": target.name}

        assert wait_for("the transfer", handed_over)
        assert leader_of(three) is target
        assert old is not target
    assert target.call("POST", "/v1/leader", {"transfer": target.name})[0] == 200


def test_a_transfer_to_nobody_known_is_refused(three: list[Server]) -> None:
    status, body = leader_of(three).call("POST", "/v1/leader", {"transfer": "n9"})
    assert (status, body["error"], body["definite"]) == (409, "refused-change", True)


def test_a_change_that_leaves_nobody_is_refused(three: list[Server]) -> None:
    remove = [server.name for server in three]
    status, body = three[0].ask("POST", "/v1/members", {"remove": remove})
    assert (status, body["error"], body["definite"]) == (409, "refused-change", True)


def test_nodes_with_the_same_entries_have_the_same_hash(three: list[Server]) -> None:
    three[0].ask("POST", "/v1/batch", {"commands": [["add", "h", 1]] * 50})

    def agree() -> bool:
        states = {(s["applied"], s["state_hash"]) for s in (each.status() for each in three)}
        return len(states) == 1

    assert wait_for("equal hashes at equal indexes", agree)
