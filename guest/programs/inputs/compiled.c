/* What the compiler is given: sorting, hashing, searching and arithmetic for several types, an
 * expression parser, and a small interpreter. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONTAINER(T, NAME)                                                              \
    struct NAME##_map { T *keys; uint32_t *values; size_t room, used; };                \
    static uint64_t NAME##_hash(T key)                                                  \
    {                                                                                   \
        uint64_t h = 14695981039346656037u;                                             \
        unsigned char bytes[sizeof(T)];                                                 \
        memcpy(bytes, &key, sizeof key);                                                \
        for (size_t i = 0; i < sizeof bytes; i++)                                       \
            h = (h ^ bytes[i]) * 1099511628211u;                                        \
        return h;                                                                       \
    }                                                                                   \
    int NAME##_map_put(struct NAME##_map *map, T key, uint32_t value)                   \
    {                                                                                   \
        if (map->used * 4 >= map->room * 3) {                                           \
            struct NAME##_map grown = { NULL, NULL, map->room ? map->room * 2 : 16, 0 }; \
            grown.keys = calloc(grown.room, sizeof(T));                                 \
            grown.values = calloc(grown.room, sizeof(uint32_t));                        \
            if (!grown.keys || !grown.values)                                           \
                return -ENOMEM;                                                         \
            for (size_t i = 0; i < map->room; i++)                                      \
                if (map->values[i])                                                     \
                    NAME##_map_put(&grown, map->keys[i], map->values[i]);               \
            free(map->keys);                                                            \
            free(map->values);                                                          \
            *map = grown;                                                               \
        }                                                                               \
        size_t at = NAME##_hash(key) % map->room;                                       \
        while (map->values[at] && map->keys[at] != key)                                 \
            at = (at + 1) % map->room;                                                  \
        map->used += !map->values[at];                                                  \
        map->keys[at] = key;                                                            \
        map->values[at] = value;                                                        \
        return 0;                                                                       \
    }                                                                                   \
    void NAME##_sort(T *from, size_t count)                                             \
    {                                                                                   \
        while (count > 12) {                                                            \
            T a = from[0], b = from[count / 2], c = from[count - 1];                    \
            T pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b); \
            size_t i = 0, j = count - 1;                                                \
            for (;; i++, j--) {                                                         \
                while (from[i] < pivot)                                                 \
                    i++;                                                                \
                while (pivot < from[j])                                                 \
                    j--;                                                                \
                if (i >= j)                                                             \
                    break;                                                              \
                T swapped = from[i];                                                    \
                from[i] = from[j];                                                      \
                from[j] = swapped;                                                      \
            }                                                                           \
            NAME##_sort(from + i, count - i);                                           \
            count = i;                                                                  \
        }                                                                               \
        for (size_t i = 1; i < count; i++) {                                            \
            T moved = from[i];                                                          \
            size_t j = i;                                                               \
            for (; j > 0 && moved < from[j - 1]; j--)                                   \
                from[j] = from[j - 1];                                                  \
            from[j] = moved;                                                            \
        }                                                                               \
    }                                                                                   \
    size_t NAME##_search(const T *from, size_t count, T wanted)                         \
    {                                                                                   \
        size_t low = 0;                                                                 \
        while (count > 0) {                                                             \
            size_t half = count / 2;                                                    \
            if (from[low + half] < wanted) {                                            \
                low += half + 1;                                                        \
                count -= half + 1;                                                      \
            } else {                                                                    \
                count = half;                                                           \
            }                                                                           \
        }                                                                               \
        return low;                                                                     \
    }                                                                                   \
    void NAME##_multiply(T *restrict out, const T *restrict a, const T *restrict b, int n) \
    {                                                                                   \
        for (int i = 0; i < n; i++)                                                     \
            for (int k = 0; k < n; k++)                                                 \
                for (int j = 0; j < n; j++)                                             \
                    out[i * n + j] += a[i * n + k] * b[k * n + j];                      \
    }                                                                                   \
    T NAME##_scan(T *values, int n, int step)                                           \
    {                                                                                   \
        T sum = 0, most = values[0];                                                    \
        for (int i = 0; i < n; i++) {                                                   \
            sum += values[i];                                                           \
            most = values[i] > most ? values[i] : most;                                 \
            values[i] = i >= step ? values[i - step] + sum : sum;                       \
        }                                                                               \
        return sum + most;                                                              \
    }

CONTAINER(int8_t, i8)
CONTAINER(uint8_t, u8)
CONTAINER(int16_t, i16)
CONTAINER(uint16_t, u16)
CONTAINER(int32_t, i32)
CONTAINER(uint32_t, u32)
CONTAINER(int64_t, i64)
CONTAINER(uint64_t, u64)
CONTAINER(float, f32)
CONTAINER(double, f64)

/* expression = term (('+' | '-') term)*, term = factor (('*' | '/') factor)*. */
struct parser { const char *at; const char *wrong; };

static double expression(struct parser *p);

static double factor(struct parser *p)
{
    while (isspace((unsigned char)*p->at))
        p->at++;
    if (*p->at == '-') {
        p->at++;
        return -factor(p);
    }
    if (*p->at == '(') {
        p->at++;
        double value = expression(p);
        if (*p->at == ')')
            p->at++;
        else
            p->wrong = "no closing parenthesis";
        return value;
    }
    if (!strncmp(p->at, "sqrt", 4)) {
        p->at += 4;
        return sqrt(fabs(factor(p)));
    }
    char *end;
    double value = strtod(p->at, &end);
    if (end == p->at)
        p->wrong = "no number";
    p->at = end;
    return value;
}

static double term(struct parser *p)
{
    double value = factor(p);
    for (;;) {
        while (isspace((unsigned char)*p->at))
            p->at++;
        if (*p->at == '*') {
            p->at++;
            value *= factor(p);
        } else if (*p->at == '/') {
            p->at++;
            double by = factor(p);
            if (by == 0)
                p->wrong = "division by zero";
            value /= by;
        } else {
            return value;
        }
    }
}

static double expression(struct parser *p)
{
    double value = term(p);
    while (!p->wrong && (*p->at == '+' || *p->at == '-')) {
        char sign = *p->at++;
        double next = term(p);
        value = sign == '+' ? value + next : value - next;
    }
    return value;
}

int evaluate(const char *text, double *value, char *message, size_t room)
{
    struct parser p = { text, NULL };
    *value = expression(&p);
    if (!p.wrong && *p.at)
        p.wrong = "something follows";
    if (p.wrong)
        snprintf(message, room, "%s at byte %zu: \"%.8s\"", p.wrong, (size_t)(p.at - text), p.at);
    return p.wrong ? -EINVAL : 0;
}

enum opcode { PUSH, ADD, SUB, MUL, DIV, DUP, SWAP, OVER, JUMP, JUMP_ZERO, LOAD, STORE, CALL, RETURN, PRINT, HALT };

struct instruction { enum opcode opcode; int64_t operand; };

int interpret(const struct instruction *code, size_t length, int64_t *memory, size_t words, FILE *out)
{
    int64_t stack[256];
    size_t calls[64], depth = 0, called = 0, at = 0;
    for (uint64_t steps = 0; at < length; steps++) {
        const struct instruction *now = &code[at++];
        if (depth + 2 > sizeof stack / sizeof *stack || steps > UINT64_C(1) << 40)
            return -E2BIG;
        switch (now->opcode) {
        case PUSH: stack[depth++] = now->operand; break;
        case ADD: depth--; stack[depth - 1] += stack[depth]; break;
        case SUB: depth--; stack[depth - 1] -= stack[depth]; break;
        case MUL: depth--; stack[depth - 1] *= stack[depth]; break;
        case DIV:
            depth--;
            if (!stack[depth])
                return -EDOM;
            stack[depth - 1] /= stack[depth];
            break;
        case DUP: stack[depth] = stack[depth - 1]; depth++; break;
        case SWAP: {
            int64_t top = stack[depth - 1];
            stack[depth - 1] = stack[depth - 2];
            stack[depth - 2] = top;
            break;
        }
        case OVER: stack[depth] = stack[depth - 2]; depth++; break;
        case JUMP: at = (size_t)now->operand; break;
        case JUMP_ZERO:
            if (!stack[--depth])
                at = (size_t)now->operand;
            break;
        case LOAD:
            if ((uint64_t)now->operand >= words)
                return -EFAULT;
            stack[depth++] = memory[now->operand];
            break;
        case STORE:
            if ((uint64_t)now->operand >= words)
                return -EFAULT;
            memory[now->operand] = stack[--depth];
            break;
        case CALL:
            if (called == sizeof calls / sizeof *calls)
                return -E2BIG;
            calls[called++] = at;
            at = (size_t)now->operand;
            break;
        case RETURN:
            if (!called)
                return 0;
            at = calls[--called];
            break;
        case PRINT: fprintf(out, "%lld\n", (long long)stack[--depth]); break;
        case HALT: return 0;
        }
    }
    return -EFAULT;
}
