package main

import (
	"bufio"
	"encoding/json"
	"os"
	"time"
)

var answers = json.NewEncoder(os.Stdout)

// refuse answers a command with what was wrong, and ends.
func refuse(op string, err error) {
	answers.Encode(map[string]any{"op": op, "error": err.Error()})
	os.Exit(1)
}

// serve reads commands from stdin, one a line, and answers each with a line: {"op":…,"elapsedMs":…}, or
// {"op":…,"error":…} and exit status 1. What parse returns is carried out on the clock, parse itself is not.
func serve(parse func(line []byte) (op string, work func() error, err error)) {
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 256<<20)
	for input.Scan() {
		op, work, err := parse(input.Bytes())
		if err != nil {
			refuse("read", err)
		}
		start := time.Now()
		err = work()
		elapsed := float64(time.Since(start).Microseconds()) / 1000
		if err != nil {
			refuse(op, err)
		}
		answers.Encode(map[string]any{"op": op, "elapsedMs": elapsed})
	}
	if err := input.Err(); err != nil {
		refuse("read", err)
	}
}
