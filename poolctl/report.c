/* report.c: see report.h. The file loads nothing and runs nothing: tables and inline SVG. */
#include "poolctl/report.h"

#include <errno.h>
#include <stdio.h>

/* A plot's inside, in SVG units. */
#define WIDTH  820.0
#define HEIGHT 220.0
#define LEFT   60.0
#define TOP    30.0

static const char *const colours[] = {"#1f6feb", "#d29922", "#2da44e", "#cf222e",
                                      "#8250df", "#57606a", "#bf3989"};
#define COLOURS (sizeof colours / sizeof *colours)

static double number(const json_t *json, const char *name)
{
    return json_number_value(json_object_get(json, name));
}

struct scale {
    double end_s, top;
};

static void open_plot(FILE *file, const char *title, const struct scale *scale, const char *unit)
{
    (void)fprintf(file, "<h2>%s</h2>\n<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\">\n",
                  title, LEFT + WIDTH + 20, TOP + HEIGHT + 40, title);
    for (int i = 0; i <= 4; i++) {
        double y = TOP + HEIGHT - HEIGHT * i / 4;
        double x = LEFT + WIDTH * i / 4;
        (void)fprintf(file,
                      "<line class=\"grid\" x1=\"%g\" y1=\"%g\" x2=\"%g\" y2=\"%g\"/>"
                      "<text x=\"%g\" y=\"%g\" text-anchor=\"end\">%.0f%s</text>"
                      "<text x=\"%g\" y=\"%g\" text-anchor=\"middle\">%.1f h</text>\n",
                      LEFT, y, LEFT + WIDTH, y, LEFT - 6, y + 4, scale->top * i / 4, unit, x,
                      TOP + HEIGHT + 18, scale->end_s * i / 4 / 3600);
    }
}

static void legend(FILE *file, size_t index, const char *name)
{
    (void)fprintf(file,
                  "<rect x=\"%g\" y=\"8\" width=\"12\" height=\"12\" fill=\"%s\"/>"
                  "<text x=\"%g\" y=\"18\">%s</text>\n",
                  LEFT + 110 * (double)index, colours[index % COLOURS],
                  LEFT + 110 * (double)index + 16, name);
}

/* A line through the samples of @simulation: their @name, of the object @inside where that is
 * given, times @factor. */
static void curve(FILE *file, const json_t *simulation, const struct scale *scale,
                  const char *inside, const char *name, double factor, size_t index)
{
    const json_t *samples = json_object_get(simulation, "samples");
    (void)fprintf(file, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"1.5\" points=\"",
                  colours[index % COLOURS]);
    for (size_t i = 0; i < json_array_size(samples); i++) {
        const json_t *sample = json_array_get(samples, i);
        const json_t *from = inside ? json_object_get(sample, inside) : sample;
        (void)fprintf(file, "%.1f,%.1f ", LEFT + WIDTH * number(sample, "time_s") / scale->end_s,
                      TOP + HEIGHT - HEIGHT * number(from, name) * factor / scale->top);
    }
    (void)fprintf(file, "\"/>\n");
}

static const char *policy_of(const json_t *simulation)
{
    return json_string_value(json_object_get(simulation, "policy"));
}

static void table(FILE *file, const json_t *simulations)
{
    (void)fprintf(file, "<table><tr><th>policy<th>peak hosts<th>lower bound<th>ratio<th>refused"
                        "<th>moves<th>stranded CPU<th>stranded memory<th>decisions/s<th>p50 ns"
                        "<th>p99 ns<th>p99.9 ns</tr>\n");
    for (size_t i = 0; i < json_array_size(simulations); i++) {
        const json_t *one = json_array_get(simulations, i);
        (void)fprintf(file,
                      "<tr><td>%s<td>%.0f<td>%.0f<td>%.3f<td>%.0f<td>%.0f<td>%.1f %%<td>%.1f %%"
                      "<td>%.0f<td>%.0f<td>%.0f<td>%.0f</tr>\n",
                      policy_of(one), number(one, "peak_hosts"), number(one, "lower_bound"),
                      number(one, "ratio"), number(one, "refused"), number(one, "moves"),
                      number(one, "stranded_cpu_permille") / 10,
                      number(one, "stranded_memory_permille") / 10, number(one, "decisions_per_s"),
                      number(one, "decision_p50_ns"), number(one, "decision_p99_ns"),
                      number(one, "decision_p999_ns"));
    }
    (void)fprintf(file, "</table>\n");
}

static struct scale scale_of(const json_t *simulations)
{
    struct scale scale = {1, 1};
    for (size_t i = 0; i < json_array_size(simulations); i++) {
        const json_t *one = json_array_get(simulations, i);
        const json_t *samples = json_object_get(one, "samples");
        size_t count = json_array_size(samples);
        double end_s = count ? number(json_array_get(samples, count - 1), "time_s") : 0;
        scale.end_s = end_s > scale.end_s ? end_s : scale.end_s;
        scale.top = number(one, "peak_hosts") > scale.top ? number(one, "peak_hosts") : scale.top;
    }
    scale.top *= 1.05;
    return scale;
}

static void plots(FILE *file, const json_t *simulations)
{
    static const char *const dimensions[] = {"cpu", "memory", "bandwidth"};
    struct scale scale = scale_of(simulations);
    open_plot(file, "Hosts in use", &scale, "");
    for (size_t i = 0; i < json_array_size(simulations); i++) {
        legend(file, i, policy_of(json_array_get(simulations, i)));
        curve(file, json_array_get(simulations, i), &scale, NULL, "hosts_used", 1, i);
    }
    (void)fprintf(file, "</svg>\n");
    for (size_t i = 0; i < json_array_size(simulations); i++) {
        char title[64];
        const struct scale percent = {scale.end_s, 100};
        (void)snprintf(title, sizeof title, "Reserved on hosts in use: %s",
                       policy_of(json_array_get(simulations, i)));
        open_plot(file, title, &percent, " %");
        for (size_t d = 0; d < 3; d++) {
            legend(file, d, dimensions[d]);
            curve(file, json_array_get(simulations, i), &percent, "reserved", dimensions[d], 100,
                  d);
        }
        (void)fprintf(file, "</svg>\n");
    }
}

int report_write(const char *path, const json_t *simulations, struct error *err)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return error_errno(err, errno, "open %s", path);
    (void)fprintf(file, "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\">"
                        "<title>vmpool simulation</title>\n<style>body{font:14px sans-serif;"
                        "max-width:920px;margin:2em auto}svg{width:100%%}svg text{font-size:11px}"
                        ".grid{stroke:#d0d7de}table{border-collapse:collapse}td,th{padding:2px 8px;"
                        "text-align:right}</style>\n<h1>Simulation</h1>\n");
    table(file, simulations);
    plots(file, simulations);
    (void)fprintf(file, "</html>\n");
    bool failed = ferror(file) != 0;
    if (fclose(file) != 0 || failed)
        return error_errno(err, errno, "write %s", path);
    return 0;
}
