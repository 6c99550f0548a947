"""DynamoDB: what the ledger's writer and readers rely on."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from tests.contract.cloud import Cloud
from tests.contract.services.probes import refused

pytestmark = pytest.mark.xdist_group("embedded_aws")


def put(table: str, pk: str, sk: str = "1", **more: Any) -> dict[str, Any]:
    """Return the put of an item, as an action of a transaction."""
    values = {name: more.pop(name) for name in list(more) if name.islower()}
    return {"Put": {"TableName": table, "Item": {"pk": {"S": pk}, "sk": {"S": sk}, **values}, **more}}


def key(pk: str, sk: str = "1") -> dict[str, Any]:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def fresh(name: str = "k") -> str:
    return f"{name}#{uuid.uuid4().hex}"


def get(service: Cloud, table: str, pk: str, sk: str = "1") -> dict[str, Any]:
    found = service.client("dynamodb").get_item(TableName=table, Key=key(pk, sk), ConsistentRead=True)
    return dict(found.get("Item", {}))


def test_a_transaction_takes_100_actions(service: Cloud, table: str) -> None:
    pk = fresh()
    actions = [put(table, pk, str(number)) for number in range(101)]
    transact = service.client("dynamodb").transact_write_items
    refused(transact, "ValidationException", TransactItems=actions)
    transact(TransactItems=actions[:100])
    assert get(service, table, pk, "99")


def test_a_transaction_takes_4_megabytes(service: Cloud, table: str) -> None:
    pk, value = fresh(), {"S": "x" * 390_000}
    actions = [put(table, pk, str(number), value=value) for number in range(11)]
    transact = service.client("dynamodb").transact_write_items
    refused(transact, "ValidationException", "TransactionCanceledException", TransactItems=actions)
    transact(TransactItems=actions[:9])


def test_a_transaction_of_binary_values_is_measured_without_their_encoding(
    service: Cloud, table: str
) -> None:
    pk, value = fresh(), {"B": b"x" * 390_000}
    actions = [put(table, pk, str(number), value=value) for number in range(9)]
    service.client("dynamodb").transact_write_items(TransactItems=actions)


def test_a_transaction_names_an_item_once(service: Cloud, table: str) -> None:
    pk = fresh()
    update = {"Update": {"TableName": table, "Key": key(pk), "UpdateExpression": "ADD n :n",
                         "ExpressionAttributeValues": {":n": {"N": "1"}}}}  # fmt: skip
    transact = service.client("dynamodb").transact_write_items
    refused(transact, "ValidationException", TransactItems=[put(table, pk), update])
    assert not get(service, table, pk)


def test_a_cancelled_transaction_tells_why_action_by_action_and_changes_nothing(
    service: Cloud, table: str
) -> None:
    there, new = fresh(), fresh()
    client = service.client("dynamodb")
    client.put_item(TableName=table, Item={**key(there), "n": {"N": "1"}})
    absent = {"ConditionExpression": "attribute_not_exists(pk)"}
    actions = [
        put(table, new, "first", **absent),
        put(table, there, **absent),
        put(table, new, "last"),
        put(table, there, "other", **absent),
    ]
    answer = refused(client.transact_write_items, "TransactionCanceledException", TransactItems=actions)
    codes = [reason["Code"] for reason in answer["CancellationReasons"]]
    assert codes == ["None", "ConditionalCheckFailed", "None", "None"]
    assert not get(service, table, new, "first")
    assert not get(service, table, new, "last")


def test_a_failed_condition_shows_the_item_when_asked(service: Cloud, table: str) -> None:
    pk, client = fresh(), service.client("dynamodb")
    item = {**key(pk), "n": {"N": "1"}}
    client.put_item(TableName=table, Item=item)
    asked = {
        "ConditionExpression": "attribute_not_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    transact = client.transact_write_items
    answer = refused(transact, "TransactionCanceledException", TransactItems=[put(table, pk, **asked)])
    assert answer["CancellationReasons"][0]["Item"] == item
    answer = refused(
        client.put_item, "ConditionalCheckFailedException", TableName=table, Item=key(pk), **asked
    )
    assert answer["Item"] == item


def test_a_token_makes_a_transaction_repeatable(service: Cloud, table: str) -> None:
    pk, token = fresh(), uuid.uuid4().hex
    add = {"Update": {"TableName": table, "Key": key(pk), "UpdateExpression": "ADD n :n",
                      "ExpressionAttributeValues": {":n": {"N": "1"}}}}  # fmt: skip
    first = put(table, pk, "new", ConditionExpression="attribute_not_exists(pk)")
    transact = service.client("dynamodb").transact_write_items
    for _ in range(3):  # the second and third would fail their condition if they were tried
        transact(TransactItems=[first, add], ClientRequestToken=token)
    assert get(service, table, pk)["n"] == {"N": "1"}


def test_a_token_belongs_to_one_transaction(service: Cloud, table: str) -> None:
    token, transact = uuid.uuid4().hex, service.client("dynamodb").transact_write_items
    transact(TransactItems=[put(table, fresh())], ClientRequestToken=token)
    other = [put(table, fresh())]
    refused(transact, "IdempotentParameterMismatchException", TransactItems=other, ClientRequestToken=token)


def test_an_item_holds_400_kilobytes(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    client.put_item(TableName=table, Item={**key(pk), "data": {"B": b"x" * 399_000}})
    item = {**key(pk), "data": {"B": b"x" * 410_000}}
    refused(client.put_item, "ValidationException", TableName=table, Item=item)
    actions = [put(table, fresh()), {"Put": {"TableName": table, "Item": item}}]
    codes = ("ValidationException", "TransactionCanceledException")
    answer = refused(client.transact_write_items, *codes, TransactItems=actions)
    reasons = [reason["Code"] for reason in answer.get("CancellationReasons", ())]
    assert reasons in ([], ["None", "ValidationError"])


@pytest.mark.parametrize("operator", ["-", "+", "*"])
def test_conditions_have_no_arithmetic(service: Cloud, table: str, operator: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    client.put_item(TableName=table, Item={**key(pk), "n": {"N": "5"}})
    condition = f"n {operator} :one >= :zero"
    values = {":one": {"N": "1"}, ":zero": {"N": "0"}}
    refused(
        client.update_item,
        "ValidationException",
        TableName=table,
        Key=key(pk),
        UpdateExpression="SET seen = :one",
        ConditionExpression=condition,
        ExpressionAttributeValues=values,
    )
    action = put(table, pk, ConditionExpression=condition, ExpressionAttributeValues=values)
    refused(client.transact_write_items, "ValidationException", TransactItems=[action])
    refused(
        client.query,
        "ValidationException",
        TableName=table,
        KeyConditionExpression=f"pk = :pk AND sk > :a {operator} :a",
        ExpressionAttributeValues={":pk": {"S": pk}, ":a": {"S": "1"}},
    )
    assert get(service, table, pk)["n"] == {"N": "5"}


def not_updated(service: Cloud, table: str, pk: str, expression: str, words: str) -> dict[str, Any]:
    """See an update of one attribute under two names refused, alone and in a transaction; return it."""
    client = service.client("dynamodb")
    update: dict[str, Any] = {
        "TableName": table,
        "Key": key(pk),
        "UpdateExpression": expression,
        "ExpressionAttributeNames": {"#0": "cnt", "#1": "cnt"},
        "ExpressionAttributeValues": {":a": {"N": "1"}, ":b": {"N": "2"}},
    }
    answer = refused(client.update_item, "ValidationException", **update)
    assert words in answer["Error"]["Message"]
    refused(client.transact_write_items, "ValidationException", TransactItems=[{"Update": update}])
    assert not get(service, table, pk)
    return update


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("ADD #0 :a, #1 :b", "overlap"),
        ("SET #0 = :a, #1 = :b", "overlap"),
        ("SET #0 = :a REMOVE #1 ADD more :b", "overlap"),
        ("ADD #0 :a ADD #1 :b", '"ADD" section can only be used once'),
        ("SET #0 = :a ADD more :b SET #1 = :a", '"SET" section can only be used once'),
    ],
)
def test_an_update_names_each_path_and_each_clause_once(
    service: Cloud, table: str, expression: str, words: str
) -> None:
    client, pk = service.client("dynamodb"), fresh()
    update = not_updated(service, table, pk, expression, words)
    apart = {"UpdateExpression": "ADD #0 :a, #1 :b", "ExpressionAttributeNames": {"#0": "cnt", "#1": "cnt1"}}
    client.update_item(**{**update, **apart})
    assert get(service, table, pk)["cnt1"] == {"N": "2"}


@pytest.mark.parametrize("expression", ["SET #0.part = :a, #1 = :b", "SET #0[0] = :a, #1[0].part = :b"])
def test_no_path_of_an_update_holds_another(service: Cloud, table: str, expression: str) -> None:
    not_updated(service, table, fresh(), expression, "overlap")


def test_a_reserved_word_needs_a_placeholder(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    values = {":v": {"S": "v"}}
    update: dict[str, Any] = {"TableName": table, "Key": key(pk), "ExpressionAttributeValues": values}
    refused(client.update_item, "ValidationException", UpdateExpression="SET status = :v", **update)
    condition = {"ConditionExpression": "attribute_not_exists(data)"}
    refused(client.put_item, "ValidationException", TableName=table, Item=key(pk), **condition)
    client.update_item(UpdateExpression="SET #s = :v", ExpressionAttributeNames={"#s": "status"}, **update)
    assert get(service, table, pk)["status"] == {"S": "v"}


def test_placeholders_have_to_be_known_and_used(service: Cloud, table: str) -> None:
    update = service.client("dynamodb").update_item
    asked: dict[str, Any] = {"TableName": table, "Key": key(fresh()), "UpdateExpression": "SET a = :a"}
    one = {":a": {"S": "a"}}
    refused(update, "ValidationException", **asked)
    refused(update, "ValidationException", ExpressionAttributeValues={**one, ":b": {"S": "b"}}, **asked)
    refused(
        update,
        "ValidationException",
        ExpressionAttributeValues=one,
        ExpressionAttributeNames={"#n": "n"},
        **asked,
    )


def test_keys_are_never_empty_and_other_texts_may_be(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    refused(client.put_item, "ValidationException", TableName=table, Item=key("", "1"))
    refused(client.put_item, "ValidationException", TableName=table, Item=key(pk, ""))
    index = {"gsi1pk": {"S": ""}, "gsi1sk": {"S": "1"}}
    refused(client.put_item, "ValidationException", TableName=table, Item={**key(pk), **index})
    client.put_item(TableName=table, Item={**key(pk), "text": {"S": ""}})
    assert get(service, table, pk)["text"] == {"S": ""}


def test_a_key_has_2048_and_1024_bytes_in_reads_too(service: Cloud, table: str) -> None:
    client, long = service.client("dynamodb"), "é" * 1_024
    client.put_item(TableName=table, Item=key(long, "s" * 1_024))
    assert get(service, table, long, "s" * 1_024)
    for wrong in (key(f"{long}x"), key("k", "s" * 1_025)):
        refused(client.put_item, "ValidationException", TableName=table, Item=wrong)
        refused(client.get_item, "ValidationException", TableName=table, Key=wrong)
        keys = {table: {"Keys": [key("k"), wrong]}}
        refused(client.batch_get_item, "ValidationException", RequestItems=keys)


def test_numbers_have_38_digits(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    whole = "1" * 38
    client.put_item(TableName=table, Item={**key(pk), "n": {"N": whole}})
    assert get(service, table, pk)["n"] == {"N": whole}
    for wrong in ("1" * 39, "1E126", "one"):
        item = {**key(pk), "n": {"N": wrong}}
        refused(client.put_item, "ValidationException", TableName=table, Item=item)


def test_sums_of_numbers_are_exact(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    for amount in ("0.1", "0.2", "1000000000000", "0.000000000000001", "-0.3"):
        answer = client.update_item(
            TableName=table,
            Key=key(pk),
            UpdateExpression="ADD usd :usd",
            ExpressionAttributeValues={":usd": {"N": amount}},
            ReturnValues="UPDATED_NEW",
        )
    assert answer["Attributes"]["usd"] == {"N": "1000000000000.000000000000001"}


def test_an_update_may_set_and_add_what_is_not_there(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    client.update_item(
        TableName=table,
        Key=key(pk),
        UpdateExpression="SET expires_at = :expires ADD #0 :0, #1 :1",
        ExpressionAttributeNames={"#0": "n.issue_detected", "#1": "c.a#b"},
        ExpressionAttributeValues={":expires": {"N": "9"}, ":0": {"N": "1"}, ":1": {"N": "0.5"}},
    )
    wanted = {"expires_at": {"N": "9"}, "n.issue_detected": {"N": "1"}, "c.a#b": {"N": "0.5"}}
    assert get(service, table, pk) == {**key(pk), **wanted}


def test_a_condition_on_the_key_is_about_the_item_not_its_partition(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    absent: dict[str, Any] = {"TableName": table, "ConditionExpression": "attribute_not_exists(pk)"}
    for sk in ("1", "2"):
        client.put_item(Item=key(pk, sk), **absent)
    refused(client.put_item, "ConditionalCheckFailedException", Item=key(pk, "2"), **absent)


def test_conditions_compare_numbers_by_value(service: Cloud, table: str) -> None:
    client, pk = service.client("dynamodb"), fresh()
    client.put_item(TableName=table, Item={**key(pk), "ver": {"N": "7.0"}})
    asked: dict[str, Any] = {"TableName": table, "Item": key(pk), "ConditionExpression": "ver = :known"}
    wrong = {":known": {"S": "7"}}
    refused(client.put_item, "ConditionalCheckFailedException", ExpressionAttributeValues=wrong, **asked)
    client.put_item(ExpressionAttributeValues={":known": {"N": "7"}}, **asked)


def test_an_update_does_not_touch_the_key(service: Cloud, table: str) -> None:
    update: dict[str, Any] = {
        "UpdateExpression": "SET sk = :v",
        "ExpressionAttributeValues": {":v": {"S": "2"}},
    }
    call = service.client("dynamodb").update_item
    refused(call, "ValidationException", TableName=table, Key=key(fresh()), **update)


def test_a_table_that_is_not_there_is_told_as_such(service: Cloud, table: str) -> None:
    client, missing = service.client("dynamodb"), f"{table}-missing"
    refused(client.get_item, "ResourceNotFoundException", TableName=missing, Key=key("k"))
    refused(client.transact_write_items, "ResourceNotFoundException", TransactItems=[put(missing, "k")])
    request = {missing: {"Keys": [key("k")]}}
    refused(client.batch_get_item, "ResourceNotFoundException", RequestItems=request)
