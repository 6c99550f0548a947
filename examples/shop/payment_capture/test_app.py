import unittest

import app


def capture(**answers):
    payments = [{"id": name, "answers": given} for name, given in answers.items()]
    gateway = app.Gateway(payments)
    return app.capture_all(list(answers), gateway), gateway


class PaymentCaptureTest(unittest.TestCase):
    def test_at_once(self):
        states, gateway = capture(p1=["ok"], p2=["declined"])
        self.assertEqual(states, {"p1": "captured", "p2": "declined"})
        self.assertEqual(gateway.calls, ["p1", "p2"])

    def test_third_attempt(self):
        self.assertEqual(capture(p1=["timeout", "timeout", "ok"])[0], {"p1": "captured"})

    def test_each_payment_has_its_own_attempts(self):
        states, _ = capture(p1=["ok"], p2=["timeout", "ok"], p3=["timeout", "timeout", "ok"])
        self.assertEqual(states, {"p1": "captured", "p2": "captured", "p3": "captured"})

    def test_gives_up_after_three(self):
        payments = [{"id": "p1", "answers": ["ok"]}, {"id": "p2", "answers": ["timeout"] * 9}]
        gateway = app.Gateway(payments)
        with self.assertRaises(app.GatewayTimeout):
            app.capture_all(["p1", "p2"], gateway)
        self.assertEqual(gateway.calls, ["p1", "p2", "p2", "p2"])


if __name__ == "__main__":
    unittest.main()
