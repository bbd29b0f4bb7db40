/*
 * text.h: text as a terminal shows it: UTF-8 widths, what is safe to print, what was meant.
 *
 * Widths are counted here and not by wcwidth(3), so that a table looks the same whatever the
 * locale is: combining marks count 0 columns, East Asian wide characters and emoji 2.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Columns @text takes on a terminal; a byte that is not UTF-8 counts one. */
int text_width(const char *text);

/* The number of bytes of @text that fit into @columns. */
size_t text_fit(const char *text, int columns);

/* Prints @text with control characters and broken UTF-8 as '?': what a VM or a node is called may
 * not steer the operator's terminal. Line breaks become spaces unless @lines. */
void text_print_safe(FILE *out, const char *text, bool lines);

/* Prints @text in lines of at most @columns, each after the first with @indent spaces before it; an
 * empty line in @text begins a new paragraph. Ends with a line break. */
void text_print_wrapped(FILE *out, const char *text, int indent, int columns);

/* The number of letters to add, drop, change or swap to make @b of @a; large where either is longer
 * than any name we know. */
unsigned text_distance(const char *a, const char *b);
