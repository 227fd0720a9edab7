"""A client that only polls, as one would write it with nothing but HTTP."""

import threading
import unittest

from . import server


class Poll(unittest.TestCase):
    def test_a_loop_of_polls_receives_everything_once_and_in_order(self):
        words = [f"word {number}" for number in range(120)]
        _, answer = server.shared.get_json("/v1/poll?notify=polled&timeout=0")
        self.assertEqual(answer["events"], [])
        with server.shared.socket("/alle") as speaker, server.shared.socket("/alle") as listener:
            # While somebody listens, what is said between two polls is kept.
            listener.ask({"type": "subscribe", "channel": "polled"})

            def say():
                for word in words:
                    speaker.send({"type": "notify", "channel": "polled", "payload": word})

            speaking = threading.Thread(target=say)
            speaking.start()
            heard, polls = [], 0
            while len(heard) < len(words):
                path = f"/v1/poll?notify=polled&since={answer['cursor']}&limit=30&timeout=5"
                status, answer = server.shared.get_json(path)
                self.assertEqual((status, answer.get("gap")), (200, None))
                self.assertLessEqual(len(answer["events"]), 30)
                self.assertTrue(answer["events"], "a poll waited in vain")
                heard += [event["data"] for event in answer["events"]]
                polls += 1
            speaking.join()
        self.assertEqual(heard, words)
        self.assertGreaterEqual(polls, 4)

    def test_a_poll_waits_until_something_is_said(self):
        _, answer = server.shared.get_json("/v1/poll?topic=waited&timeout=0")
        answers = []
        path = f"/v1/poll?topic=waited&since={answer['cursor']}&timeout=20"
        waiting = threading.Thread(target=lambda: answers.append(server.shared.get_json(path)))
        waiting.start()
        with server.shared.socket("/v1/ws") as speaker:
            speaker.receive()
            speaker.ask({"type": "publish", "id": 1, "topic": "waited", "data": {"n": 1}})
        waiting.join(server.SOON)
        [(status, answer)] = answers
        self.assertEqual((status, answer["events"][0]["data"]), (200, {"n": 1}))

    def test_a_poll_in_vain_ends_with_the_cursor_it_came_with(self):
        _, first = server.shared.get_json("/v1/poll?topic=silent&timeout=0")
        _, again = server.shared.get_json(f"/v1/poll?topic=silent&timeout=1&since={first['cursor']}")
        self.assertEqual(again, {"events": [], "cursor": first["cursor"]})

    def test_several_topics_share_one_cursor(self):
        query = "/v1/poll?topic=several&notify=several&timeout=5"
        _, answer = server.shared.get_json(f"{query.replace('timeout=5', 'timeout=0')}")
        with server.shared.socket("/v1/ws") as speaker:
            speaker.receive()
            for topic in [{"topic": "several"}, {"notify": "several"}]:
                speaker.send({"type": "subscribe", **topic})
                speaker.receive()
                speaker.send({"type": "publish", **topic, "data": "x"})
                speaker.receive()
        kinds = set()
        while len(kinds) < 2:
            _, answer = server.shared.get_json(f"{query}&since={answer['cursor']}")
            self.assertNotIn("gap", answer)
            kinds |= {"topic" if "topic" in event else "notify" for event in answer["events"]}
