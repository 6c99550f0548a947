import unittest

import app


def send(messages):
    queue = app.Queue()
    app.send_all(messages, queue)
    return queue.batches


class NotifyBatchTest(unittest.TestCase):
    def test_a_few(self):
        event = {"template": "shipped", "orders": ["o-1", "o-2"]}
        self.assertEqual(app.handler(event, None), {"messages": 2, "batches": 1})

    def test_none(self):
        self.assertEqual(send([]), [])

    def test_more_than_the_queue_takes_at_once(self):
        messages = [f"m-{number}" for number in range(23)]
        batches = send(messages)
        self.assertEqual([message for batch in batches for message in batch], messages)
        self.assertEqual(len(batches), 3)

    def test_long_messages(self):
        messages = ["x" * 100_000, "y" * 100_000, "z" * 100_000, "short"]
        self.assertEqual([len(batch) for batch in send(messages)], [2, 2])

    def test_bytes_count_not_characters(self):
        messages = ["ü" * 100_000, "ö" * 100_000]
        self.assertEqual([len(batch) for batch in send(messages)], [1, 1])


if __name__ == "__main__":
    unittest.main()
