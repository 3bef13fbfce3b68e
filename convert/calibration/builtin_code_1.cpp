// Program code and data formats, first half.
// The texts keep their long lines, because line ends are part of them.

#include "convert/calibration/builtin_texts.h"

namespace llmq::convert {
namespace {

constexpr std::string_view kTexts[] = {
    R"t(from collections import OrderedDict


class LRUCache:
    """Keeps the `capacity` entries that were used last."""

    def __init__(self, capacity: int) -> None:
        if capacity <= 0:
            raise ValueError("capacity must be positive")
        self._capacity = capacity
        self._entries: OrderedDict[str, bytes] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: str, value: bytes) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False))t",
    R"t(// Merges overlapping intervals; the result is sorted and disjoint.
std::vector<std::pair<int, int>> merge(std::vector<std::pair<int, int>> intervals) {
  std::sort(intervals.begin(), intervals.end());
  std::vector<std::pair<int, int>> merged;
  for (const auto& [begin, end] : intervals) {
    if (!merged.empty() && begin <= merged.back().second) {
      merged.back().second = std::max(merged.back().second, end);
    } else {
      merged.emplace_back(begin, end);
    }
  }
  return merged;
})t",
    R"t(SELECT c.city,
       COUNT(*)                          AS n_orders,
       ROUND(AVG(o.total_cents) / 100, 2) AS mean_total
FROM orders AS o
JOIN customers AS c ON c.id = o.customer_id
WHERE o.created_at >= DATE '2024-01-01'
  AND o.status IN ('paid', 'shipped')
GROUP BY c.city
HAVING COUNT(*) > 50
ORDER BY mean_total DESC
LIMIT 10;)t",
    R"t(#!/usr/bin/env bash
# Keeps the seven newest backups of a folder and removes the others.
set -euo pipefail

folder=${1:?usage: backup.sh FOLDER}
target="$HOME/backups/$(basename "$folder")-$(date +%Y%m%d-%H%M%S).tar.gz"

mkdir -p "$(dirname "$target")"
tar -czf "$target" -C "$(dirname "$folder")" "$(basename "$folder")"
ls -1t "$HOME/backups/$(basename "$folder")"-*.tar.gz | tail -n +8 | xargs -r rm --
echo "wrote $target ($(du -h "$target" | cut -f1))")t",
    R"t(package main

import (
	"fmt"
	"sync"
)

// fanIn merges channels into one, which is closed when all of them are.
func fanIn[T any](inputs ...<-chan T) <-chan T {
	out := make(chan T)
	var wg sync.WaitGroup
	for _, in := range inputs {
		wg.Add(1)
		go func(c <-chan T) {
			defer wg.Done()
			for v := range c {
				out <- v
			}
		}(in)
	}
	go func() { wg.Wait(); close(out) }()
	return out
}

func main() {
	a, b := make(chan int), make(chan int)
	go func() { a <- 1; close(a) }()
	go func() { b <- 2; close(b) }()
	for v := range fanIn[int](a, b) {
		fmt.Println(v)
	}
})t",
    R"t({
  "name": "weather-station",
  "version": "2.3.1",
  "private": true,
  "sensors": [
    {"id": "t-01", "kind": "temperature", "unit": "°C", "interval_s": 60, "calibration": [0.998, -0.12]},
    {"id": "h-01", "kind": "humidity", "unit": "%", "interval_s": 60, "calibration": [1.0, 0.0]},
    {"id": "w-02", "kind": "wind", "unit": "m/s", "interval_s": 5, "calibration": null}
  ],
  "upload": {"enabled": false, "retries": 3, "backoff_ms": [250, 1000, 4000]}
})t",
    R"t(use std::collections::HashMap;

/// Counts words, ignoring case and punctuation at their ends.
fn word_counts(text: &str) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for word in text.split_whitespace() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        if !word.is_empty() {
            *counts.entry(word).or_insert(0) += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_without_case() {
        let counts = word_counts("Tea, tea, and more TEA!");
        assert_eq!(counts["tea"], 3);
        assert_eq!(counts.len(), 3);
    }
})t",
    R"t(/** Calls `action` at most once in `delay` milliseconds after the last request. */
function debounce(action, delay = 200) {
  let timer = null;
  return function debounced(...args) {
    clearTimeout(timer);
    timer = setTimeout(() => action.apply(this, args), delay);
  };
}

const input = document.querySelector('#search');
input.addEventListener('input', debounce(async (event) => {
  const query = event.target.value.trim();
  if (query.length < 3) return;
  const response = await fetch(`/api/search?q=${encodeURIComponent(query)}`);
  if (!response.ok) throw new Error(`search failed: ${response.status}`);
  render(await response.json());
}));)t",
    R"t(public final class Matrix {
    private final double[] values;
    private final int rows;
    private final int columns;

    public Matrix(int rows, int columns) {
        if (rows <= 0 || columns <= 0) {
            throw new IllegalArgumentException("extents must be positive");
        }
        this.rows = rows;
        this.columns = columns;
        this.values = new double[rows * columns];
    }

    public Matrix multiply(Matrix other) {
        if (columns != other.rows) {
            throw new IllegalArgumentException(columns + " != " + other.rows);
        }
        Matrix result = new Matrix(rows, other.columns);
        for (int i = 0; i < rows; i++) {
            for (int k = 0; k < columns; k++) {
                double factor = values[i * columns + k];
                for (int j = 0; j < other.columns; j++) {
                    result.values[i * other.columns + j] += factor * other.values[k * other.columns + j];
                }
            }
        }
        return result;
    }
})t",
    R"t(name: checks
on:
  push:
    branches: [main]
  pull_request:

jobs:
  test:
    runs-on: linux
    strategy:
      matrix:
        python: ["3.10", "3.11", "3.12"]
    steps:
      - name: Install
        run: |
          python -m pip install --upgrade pip
          pip install -e ".[test]"
      - name: Test
        run: pytest -q --maxfail=1
        timeout-minutes: 15)t",
    R"t(def is_balanced(text: str) -> bool:
    """Check if the brackets in text are balanced.

    >>> is_balanced("(a[b]{c})")
    True
    >>> is_balanced("(]")
    False
    >>> is_balanced("((")
    False
    """
    closing = {")": "(", "]": "[", "}": "{"}
    stack = []
    for char in text:
        if char in closing.values():
            stack.append(char)
        elif char in closing:
            if not stack or stack.pop() != closing[char]:
                return False
    return not stack)t",
    R"t(# tinygrep

A very small search tool.

## Usage

```sh
tinygrep [-i] [-n] PATTERN FILE...
```

| Option | Meaning |
|--------|---------|
| `-i`   | ignore case |
| `-n`   | print line numbers |

**Note:** patterns are literal; there are *no* regular expressions. If you need those, use something bigger.

- [x] Unicode
- [ ] Colours
- [ ] Windows line endings)t",
    R"t(template <typename T, size_t kCapacity>
class RingBuffer {
 public:
  [[nodiscard]] bool push(T value) {
    const size_t next = (head_ + 1) % kCapacity;
    if (next == tail_.load(std::memory_order_acquire)) return false;  // full
    slots_[head_] = std::move(value);
    head_published_.store(next, std::memory_order_release);
    head_ = next;
    return true;
  }

  [[nodiscard]] std::optional<T> pop() {
    const size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail == head_published_.load(std::memory_order_acquire)) return std::nullopt;
    T value = std::move(slots_[tail]);
    tail_.store((tail + 1) % kCapacity, std::memory_order_release);
    return value;
  }

 private:
  std::array<T, kCapacity> slots_{};
  size_t head_ = 0;
  std::atomic<size_t> head_published_{0};
  std::atomic<size_t> tail_{0};
};)t",
    R"t(\begin{theorem}
Let $f\colon [a,b] \to \mathbb{R}$ be continuous and $f(a) < 0 < f(b)$. Then there is a $c \in (a,b)$ with $f(c) = 0$.
\end{theorem}
\begin{proof}
Put $S = \{x \in [a,b] : f(x) \le 0\}$ and $c = \sup S$. If $f(c) > 0$, then $f > 0$ on a neighbourhood of $c$, so some $c' < c$ is an upper bound of $S$, a contradiction. If $f(c) < 0$, then $f < 0$ somewhere to the right of $c$, again a contradiction. Hence $f(c) = 0$.
\end{proof})t",
    R"t(Traceback (most recent call last):
  File "train.py", line 88, in <module>
    main(parse_args())
  File "train.py", line 61, in main
    loss = step(model, batch)
  File "train.py", line 34, in step
    logits = model(batch["input_ids"])
RuntimeError: shape mismatch: expected (32, 128, 768), got (32, 768, 128)

The last two axes are swapped. Replace `x.transpose(1, 2)` in the collate function by `x`, or transpose once more in front of the call.)t",
    R"t(CREATE TABLE account (
    id         BIGINT PRIMARY KEY,
    owner      TEXT NOT NULL,
    balance    NUMERIC(12, 2) NOT NULL DEFAULT 0 CHECK (balance >= 0),
    opened_at  TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);

BEGIN;
UPDATE account SET balance = balance - 25.00 WHERE id = 1;
UPDATE account SET balance = balance + 25.00 WHERE id = 2;
INSERT INTO transfer (from_id, to_id, amount) VALUES (1, 2, 25.00);
COMMIT;)t",
    R"t(import numpy as np


def moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of every window of `width` neighbours; shorter than the input by width - 1."""
    sums = np.cumsum(np.insert(values.astype(np.float64), 0, 0.0))
    return (sums[width:] - sums[:-width]) / width


rng = np.random.default_rng(7)
noise = rng.normal(size=1_000)
smooth = moving_average(noise, 25)
print(f"std before {noise.std():.3f}, after {smooth.std():.3f}")
assert len(smooth) == 976)t",
    R"t(CC      := gcc
CFLAGS  := -O2 -Wall -Wextra -std=c11
OBJECTS := main.o parser.o lexer.o table.o

calc: $(OBJECTS)
	$(CC) $(CFLAGS) -o $@ $^ -lm

%.o: %.c calc.h
	$(CC) $(CFLAGS) -c -o $@ $<

.PHONY: clean test
test: calc
	./run_tests.sh ./calc
clean:
	rm -f calc $(OBJECTS))t",
    R"t(/* Reverses a singly linked list in place and returns the new head. */
struct node *reverse(struct node *head) {
    struct node *previous = NULL;
    while (head != NULL) {
        struct node *next = head->next;
        head->next = previous;
        previous = head;
        head = next;
    }
    return previous;
}

int main(void) {
    struct node c = {3, NULL}, b = {2, &c}, a = {1, &b};
    for (const struct node *n = reverse(&a); n; n = n->next) {
        printf("%d%s", n->value, n->next ? " -> " : "\n");
    }
    return 0;
})t",
    R"t(interface Task {
  id: number;
  title: string;
  done: boolean;
  tags?: readonly string[];
}

type Filter = 'all' | 'open' | 'done';

export function select(tasks: readonly Task[], filter: Filter, tag?: string): Task[] {
  return tasks
    .filter((t) => filter === 'all' || t.done === (filter === 'done'))
    .filter((t) => tag === undefined || (t.tags ?? []).includes(tag))
    .sort((a, b) => a.title.localeCompare(b.title) || a.id - b.id);
})t",
    R"t(# 计算斐波那契数列的第 n 项，用迭代避免重复计算
def fibonacci(n):
    if n < 0:
        raise ValueError("n 不能为负数")
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


# 测试：前十项应为 0 1 1 2 3 5 8 13 21 34
print([fibonacci(i) for i in range(10)]))t",
    R"t(diff --git a/src/config.rs b/src/config.rs
--- a/src/config.rs
+++ b/src/config.rs
@@ -41,9 +41,12 @@ impl Config {
     pub fn load(path: &Path) -> Result<Self, Error> {
-        let text = fs::read_to_string(path).unwrap();
-        let config = toml::from_str(&text).unwrap();
-        Ok(config)
+        let text = fs::read_to_string(path)
+            .map_err(|e| Error::Read(path.to_owned(), e))?;
+        let config: Self = toml::from_str(&text)
+            .map_err(|e| Error::Parse(path.to_owned(), e))?;
+        config.validate()?;
+        Ok(config)
     })t",
    R"t(<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>Opening hours</title>
  <style>
    body { font-family: sans-serif; margin: 2rem auto; max-width: 40rem; }
    th { text-align: left; padding-right: 1.5em; }
    .closed { color: #a33; }
  </style>
</head>
<body>
  <h1>Opening hours</h1>
  <table>
    <tr><th>Mon–Fri</th><td>9:00–18:00</td></tr>
    <tr><th>Sat</th><td>10:00–14:00</td></tr>
    <tr><th>Sun</th><td class="closed">closed</td></tr>
  </table>
</body>
</html>)t",
    R"t(defmodule Stack do
  @moduledoc "An immutable stack."
  defstruct items: []

  def push(%Stack{items: items}, value), do: %Stack{items: [value | items]}

  def pop(%Stack{items: []}), do: {:error, :empty}
  def pop(%Stack{items: [top | rest]}), do: {:ok, top, %Stack{items: rest}}

  def size(%Stack{items: items}), do: length(items)
end)t",
    R"t(Q: Write a function that returns the second largest distinct value of a list, or None.

```python
def second_largest(values):
    first = second = None
    for value in values:
        if first is None or value > first:
            first, second = value, first
        elif value != first and (second is None or value > second):
            second = value
    return second
```

It needs one pass and constant memory. `second_largest([3, 3, 3])` is `None`, and `second_largest([1, 5, 5, 4])` is `4`.)t",
};

}  // namespace

std::span<const std::string_view> builtin_code_first() {
  return kTexts;
}

}  // namespace llmq::convert
