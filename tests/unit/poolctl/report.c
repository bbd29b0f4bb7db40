#include "poolctl/report.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *two_simulations(void)
{
    json_error_t where;
    const char *text =
        "[{'policy':'pack','peak_hosts':10,'lower_bound':8,'ratio':1.25,'samples':["
        "{'time_s':0,'hosts_used':5,'reserved':{'cpu':0.5,'memory':0.25,'bandwidth':0}},"
        "{'time_s':7200,'hosts_used':10,'reserved':{'cpu':1.0,'memory':0.5,'bandwidth':0}}]},"
        "{'policy':'best','peak_hosts':9,'lower_bound':8,'ratio':1.125,'samples':[]}]";
    char *json = strdup(text);
    for (char *at = json; *at; at++)
        *at = *at == '\'' ? '"' : *at;
    json_t *list = json_loads(json, 0, &where);
    free(json);
    cr_assert(list, "%s", where.text);
    return list;
}

Test(report, has_a_table_and_a_curve_for_each_policy_and_loads_nothing)
{
    char path[] = "/tmp/vmpool-report-XXXXXX";
    struct error err = ERROR_INIT;
    char *text = NULL;
    size_t size = 0;
    (void)close(mkstemp(path));
    json_t *list = two_simulations();
    cr_assert_eq(report_write(path, list, &err), 0, "%s", err.text);
    FILE *file = fopen(path, "r");
    cr_assert_geq(getdelim(&text, &size, '\0', file), 0);
    (void)fclose(file);
    cr_expect(strstr(text, "<td>pack<td>10<td>8<td>1.250"));
    cr_expect(strstr(text, "<td>best<td>9"));
    /* 5 of a top of 10.5 hosts at second 0; half of the CPUs. */
    cr_expect(strstr(text, "points=\"60.0,145.2 880.0,40.5 \""), "%s", text);
    cr_expect(strstr(text, "points=\"60.0,140.0 880.0,30.0 \""), "%s", text);
    cr_expect_null(strstr(text, "http"));
    cr_expect_null(strstr(text, "<script"));
    cr_expect_null(strstr(text, "nan"));
    free(text);
    (void)unlink(path);
    cr_expect_eq(report_write("/nowhere/report.html", list, &err), -1);
    json_decref(list);
}
