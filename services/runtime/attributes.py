"""Values as DynamoDB writes them down, and back: pure, as boto3's serializer does it but for the types we use.

    str S   int N   bool BOOL   bytes B   None NULL   list, tuple L   mapping M

An int comes back as int (boto3: Decimal), bytes as bytes (boto3: Binary); a number with a fraction, which we never
write, comes back as Decimal.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from services.contracts.ports import Value

NUMBER_MAX: Final = 10**38  # 38 digits: AWS developer guide, data types. A hash key (39 digits) goes as text.
_PLAIN: Final = ((bool, "BOOL"), (str, "S"), (bytes, "B"))


def to_attribute(value: Value) -> dict[str, Any]:
    """`value` as DynamoDB's tagged form. Errors: TypeError for what the port does not carry (a float, a set)."""
    if value is None:
        return {"NULL": True}
    for kind, tag in _PLAIN:
        if isinstance(value, kind):
            return {tag: value}
    if isinstance(value, int):
        if not -NUMBER_MAX < value < NUMBER_MAX:
            raise TypeError(f"{value} has more than 38 digits: write it as text")
        return {"N": str(value)}
    if isinstance(value, Mapping):
        return {"M": to_item(value)}
    if isinstance(value, list | tuple):
        return {"L": [to_attribute(inner) for inner in value]}
    raise TypeError(f"{type(value).__name__} cannot be kept in a row")


def from_attribute(attribute: Mapping[str, Any]) -> Any:
    """The value of DynamoDB's tagged form."""
    ((tag, value),) = attribute.items()
    match tag:
        case "NULL":
            return None
        case "N":
            number = Decimal(value)
            return int(number) if number == number.to_integral_value() else number
        case "M":
            return from_item(value)
        case "L":
            return [from_attribute(inner) for inner in value]
    return value


def to_item(row: Mapping[str, Value]) -> dict[str, dict[str, Any]]:
    return {name: to_attribute(value) for name, value in row.items()}


def from_item(item: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: from_attribute(attribute) for name, attribute in item.items()}
