"""Texts to calibrate the quantisation with and to check it on: what users and platforms write."""

from __future__ import annotations

CALIBRATION = (
    "write a python function that parses RFC 3339 timestamps",
    "why does my kubernetes pod keep restarting with OOMKilled?",
    "Explain what this does:\n\ndef f(xs):\n    return {x: xs.count(x) for x in set(xs)}",
    "SELECT customer_id, SUM(total) FROM orders GROUP BY customer_id HAVING SUM(total) > 1000;",
    "Traceback (most recent call last):\n  File \"app.py\", line 12, in <module>\nKeyError: 'user_id'",
    "refactor this class into smaller functions without changing behaviour",
    "my parcel should have arrived on monday, where is it??",
    "I want a refund for order #48213, the zip was broken when I opened it.",
    "book me a table for four at an italian restaurant, friday at 8pm",
    "find a cheap flight from Lisbon to Oslo in the second week of May",
    "what visa do I need to enter Vietnam with a Brazilian passport",
    "Can my landlord raise the rent in the middle of a fixed-term lease?",
    "Review the indemnification clause below and list the risks for the supplier.",
    "what are early symptoms of iron deficiency",
    "how much ibuprofen can an adult take in one day",
    "write a short poem about the sea in autumn, no rhymes",
    "Once upon a time there was a lighthouse keeper who collected storms. Continue the story.",
    "summarize this meeting in five bullet points with owners and dates",
    "translate 'see you tomorrow' into Japanese and Finnish",
    "solve 3x^2 - 12x + 9 = 0 and show each step",
    "Prove that there are infinitely many primes.",
    "what is the difference between a Roth and a traditional IRA",
    "how do I close the books for a quarter with deferred revenue",
    "draft an email to my manager asking for two days off next week",
    "make it shorter",
    "no, the other one. And in blue please",
    "thanks, that's all",
    "hi",
    "???",
    "Who won the world cup in 1998?",
    "what's the weather in Reykjavik",
    "tell me a joke about databases",
    "pretend you are a ship's cook in 1720 and describe dinner",
    "a watercolour of a fox reading a newspaper, soft light, 4k",
    "¿Cuál es la capital de Mongolia?",
    "请把这段话翻译成英文。",
    "Wie kündige ich mein Abonnement?",
    "https://example.com/a/b?c=d&e=f 404 not found",
    "aGVsbG8gd29ybGQgdGhpcyBpcyBiYXNlNjQ=",
    '{"name": "widget", "price": 12.5, "tags": ["a", "b"]}',
    "The quarterly report shows revenue of 4.2 million, up 8 % on the year before, while costs rose by 3 %. "
    "Churn fell in every segment but small business, where the price change in March cost us about two "
    "hundred accounts. Marketing asks for a larger budget in the second half. Turn this into a paragraph "
    "for the board, calm in tone, and leave out the marketing request.",
    "import asyncio\n\nasync def main():\n    async with asyncio.TaskGroup() as group:\n        "
    "for n in range(3):\n            group.create_task(work(n))\n\nasyncio.run(main())\n\n"
    "This hangs on Windows. What could be the reason?",
)

CHECK = (
    "code generation: write new functions, classes and scripts",
    "code understanding",
    "understand and explain existing code snippets, functions, or libraries",
    "customer support: order status, deliveries, returns and refunds",
    "legal questions about contracts, leases and employment law",
    "creative writing, such as stories, poems and scripts",
    "writing or changing SQL to answer a data question",
    "the user reports a suspicious message, unknown charge or possible identity theft",
    "sick leave, holidays and parental leave",
    "write a rust function that reverses a linked list",
    "Why is my React component rendering twice? It logs the effect two times on mount.",
    "what does `git rebase --onto` do",
    "my card was swallowed by the machine at the station",
    "send 200 euros to Ana every first of the month",
    "plan three days in Kyoto with two small children",
    "add a museum on the second day",
    "what's the capital of France",
    "good morning!",
    "ok great, do it",
    "Write a limerick about a cat who works in accounting.",
    "Is a verbal agreement binding if nobody wrote it down?",
    "reword this so that a twelve-year-old gets it",
    "the nightly job failed with 'relation does not exist' after yesterday's migration",
    "What sample size do I need to detect a lift of two points at eighty percent power?",
    "remove the person in the background of the photo",
    "如何重置我的密码？",
    "Объясни, что такое рекурсия",
    "x" * 300,
    "Dear Ms Okafor, thank you for your message of 3 March about the heating in flat 4B. The technician "
    "came on the fifth, replaced the valve and measured the flow again on the seventh. Since the pressure "
    "still drops at night, we will open the wall in the hallway next Tuesday between nine and noon. Please "
    "make sure that somebody is at home. Write a friendlier version of this letter.",
)
