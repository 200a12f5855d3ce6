"""Sends a message through a broker of Kafka and receives it, with the settings of a file, by librdkafka."""

import sys
import time

import confluent_kafka

TIMEOUT = 30.0  # in seconds


def read(path):
    with open(path, encoding="utf-8") as file:
        return dict(line.strip().split("=", 1) for line in file if line.strip() and not line.startswith("#"))


def refusal(settings):
    """Returns the first error of authentication."""
    errors = []
    client = confluent_kafka.Producer({**settings, "error_cb": errors.append})
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        client.poll(0.1)
        for error in errors:
            if error.code() == confluent_kafka.KafkaError._AUTHENTICATION:
                return error.str()
    raise TimeoutError(f"got {errors}, want a failure of authentication")


def main(path, topic, bad):
    settings = read(path)
    producer = confluent_kafka.Producer(settings)
    producer.produce(topic, b"an order")
    if producer.flush(TIMEOUT):
        raise TimeoutError("the message was not sent")
    consumer = confluent_kafka.Consumer({**settings, "group.id": "orders", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    message = None
    deadline = time.monotonic() + TIMEOUT
    while message is None and time.monotonic() < deadline:
        message = consumer.poll(1.0)
    assert message is not None and message.error() is None and message.value() == b"an order", message
    consumer.close()

    # The issuer refuses a wrong secret, and the broker tokens that are forged, expired, or for another resource.
    error = refusal({**settings, "sasl.oauthbearer.client.secret": "not the secret"})
    assert "invalid_client" in error, error
    local = {name: value for name, value in settings.items() if not name.startswith("sasl.oauthbearer.")}
    for token in bad:
        error = refusal({**local, "oauth_cb": lambda _, token=token: (token, time.time() + 3600)})
        assert "invalid_token" in error, error


main(sys.argv[1], sys.argv[2], sys.argv[3:])
