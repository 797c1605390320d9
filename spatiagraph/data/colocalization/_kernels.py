"""Compiled loops over the molecules of one cell: balls, communities, and pairs of genes.

A group is a set of molecules in which genes are counted: a Louvain community, the ball around a
molecule, or the whole cell. Groups come as ``ptr [K + 1]`` and ``members``. Random numbers are a
splitmix64 counter, so a cell gives the same whichever thread has it.
"""

import numpy as np
from numba import njit

from spatiagraph.data.counter import STEP, fraction, mixed, permutation

LOUVAIN, NEIGHBORHOOD, CELL = 0, 1, 2
"""Kinds of groups."""
NONE, SHUFFLE, JITTER = 0, 1, 2
"""Kinds of randomness: as measured, gene labels shuffled, positions displaced."""


@njit(cache=True, nogil=True)
def displaced(pos: np.ndarray, radius: float, seed: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Points moved evenly within a disc (a cube's worth along z), sorted by x; and their order."""
    moved = pos.copy()
    state = seed
    for i in range(len(pos)):
        while True:
            state += STEP
            u = 2.0 * fraction(state) - 1.0
            state += STEP
            v = 2.0 * fraction(state) - 1.0
            if u * u + v * v <= 1.0:
                break
        moved[i, 0] += radius * u
        moved[i, 1] += radius * v
        if pos.shape[1] == 3:
            state += STEP
            moved[i, 2] += radius * (2.0 * fraction(state) - 1.0)
    order = np.argsort(moved[:, 0], kind="mergesort")
    return moved[order], order


@njit(cache=True, nogil=True)
def balls(pos: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours of each point at most ``radius`` away, without itself; points sorted by x."""
    num, dims, limit = len(pos), pos.shape[1], radius * radius
    ptr = np.zeros(num + 1, np.int64)
    adjacent = np.empty(0, np.int32)
    place = np.empty(0, np.int64)
    for write in range(2):
        for i in range(num):
            for j in range(i + 1, num):
                if pos[j, 0] - pos[i, 0] > radius:
                    break
                square = 0.0
                for axis in range(dims):
                    square += (pos[j, axis] - pos[i, axis]) ** 2
                if square > limit:
                    continue
                if write:
                    adjacent[place[i]] = j
                    adjacent[place[j]] = i
                    place[i] += 1
                    place[j] += 1
                else:
                    ptr[i + 1] += 1
                    ptr[j + 1] += 1
        if not write:
            for i in range(num):
                ptr[i + 1] += ptr[i]
            adjacent = np.empty(ptr[num], np.int32)
            place = ptr[:-1].copy()
    return ptr, adjacent


@njit(cache=True, nogil=True)
def louvain(
    ptr: np.ndarray, adjacent: np.ndarray, resolution: float, seed: np.uint64
) -> np.ndarray:
    """Community of each node of a graph without weights, by greedy modularity, level by level."""
    num = len(ptr) - 1
    own = np.arange(num)  # of the nodes of the first level
    weight = np.ones(len(adjacent))
    loop = np.zeros(num)
    target = adjacent.astype(np.int64)
    total = float(len(adjacent))
    if total == 0:
        return own
    level = np.uint64(0)
    while True:
        size = len(ptr) - 1
        degree = loop.copy()
        for i in range(size):
            for e in range(ptr[i], ptr[i + 1]):
                degree[i] += weight[e]
        community = np.arange(size)
        mass = degree.copy()
        to = np.zeros(size)
        touched = np.empty(size, np.int64)
        order = permutation(size, mixed(seed + level))
        level += np.uint64(1)
        moved_any, moving = False, True
        while moving:
            moving = False
            for i in order:
                here = community[i]
                known = 0
                for e in range(ptr[i], ptr[i + 1]):
                    c = community[target[e]]
                    if to[c] == 0.0:
                        touched[known] = c
                        known += 1
                    to[c] += weight[e]
                mass[here] -= degree[i]
                best, gain = here, to[here] - resolution * degree[i] * mass[here] / total
                for t in range(known):
                    c = touched[t]
                    value = to[c] - resolution * degree[i] * mass[c] / total
                    if value > gain + 1e-10:
                        best, gain = c, value
                    to[c] = 0.0
                mass[best] += degree[i]
                if best != here:
                    community[i] = best
                    moving, moved_any = True, True
        if not moved_any:
            return own
        number = np.full(size, -1, np.int64)
        count = 0
        for i in range(size):
            if number[community[i]] < 0:
                number[community[i]] = count
                count += 1
            community[i] = number[community[i]]
        for i in range(num):
            own[i] = community[own[i]]
        ptr, target, weight, loop = _merged(ptr, target, weight, loop, community, count)


@njit(cache=True, nogil=True)
def _merged(
    ptr: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray,
    loop: np.ndarray,
    community: np.ndarray,
    count: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Graph whose nodes are communities; weights within one are its loop, both ways."""
    start, members = listed(community, count)
    new_ptr = np.zeros(count + 1, np.int64)
    new_target, new_weight = np.empty_like(target), np.empty_like(weight)
    new_loop = np.zeros(count)
    to, touched = np.zeros(count), np.empty(count, np.int64)
    place = 0
    for c in range(count):
        known = 0
        for m in range(start[c], start[c + 1]):
            i = members[m]
            new_loop[c] += loop[i]
            for e in range(ptr[i], ptr[i + 1]):
                other = community[target[e]]
                if other == c:
                    new_loop[c] += weight[e]
                    continue
                if to[other] == 0.0:
                    touched[known] = other
                    known += 1
                to[other] += weight[e]
        for t in range(known):
            new_target[place], new_weight[place] = touched[t], to[touched[t]]
            to[touched[t]] = 0.0
            place += 1
        new_ptr[c + 1] = place
    return new_ptr, new_target[:place].copy(), new_weight[:place].copy(), new_loop


@njit(cache=True, nogil=True)
def listed(label: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Members of each group of a partition."""
    start = np.zeros(count + 1, np.int64)
    for value in label:
        start[value + 1] += 1
    for c in range(count):
        start[c + 1] += start[c]
    place = start[:-1].copy()
    members = np.empty(len(label), np.int64)
    for i in range(len(label)):
        members[place[label[i]]] = i
        place[label[i]] += 1
    return start, members


@njit(cache=True, nogil=True)
def groups_of(
    pos: np.ndarray, kind: int, radius: float, resolution: float, seed: np.uint64
) -> tuple[np.ndarray, np.ndarray]:
    """Groups of the molecules of a cell."""
    num = len(pos)
    if kind == CELL:
        return np.array([0, num]), np.arange(num)
    ptr, adjacent = balls(pos, radius)
    if kind == LOUVAIN:
        label = louvain(ptr, adjacent, resolution, seed)
        return listed(label, num)
    start = np.empty(num + 1, np.int64)
    members = np.empty(len(adjacent) + num, np.int64)
    start[0] = place = 0
    for i in range(num):
        members[place] = i
        place += 1
        for e in range(ptr[i], ptr[i + 1]):
            members[place] = adjacent[e]
            place += 1
        start[i + 1] = place
    return start, members


@njit(cache=True, nogil=True)
def pairs_in(
    gene: np.ndarray,
    start: np.ndarray,
    members: np.ndarray,
    copies: int,
    num_genes: int,
    count: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of genes that any group holds enough copies of: codes a · G + b, and their weights.

    ``count [G]`` is zeros, before and after.
    """
    total = float(len(gene))
    codes, weights = np.empty(16, np.int64), np.empty(16)
    used = 0
    seen = np.empty(min(num_genes, len(gene)), np.int64)
    for g in range(len(start) - 1):
        if start[g + 1] - start[g] < 2 * copies:
            continue
        known = 0
        for m in range(start[g], start[g + 1]):
            a = gene[members[m]]
            if count[a] == 0:
                seen[known] = a
                known += 1
            count[a] += 1
        kept = 0
        for s in range(known):
            if count[seen[s]] >= copies:
                seen[kept], seen[s] = seen[s], seen[kept]
                kept += 1
        if used + kept * (kept - 1) // 2 > len(codes):
            room = 2 * (used + kept * kept)
            codes = np.concatenate((codes[:used], np.empty(room, np.int64)))
            weights = np.concatenate((weights[:used], np.empty(room)))
        for s in range(kept):
            for t in range(s):
                a, b = min(seen[s], seen[t]), max(seen[s], seen[t])
                codes[used] = a * num_genes + b
                weights[used] = (count[a] + count[b]) / total
                used += 1
        for s in range(known):
            count[seen[s]] = 0
    order = np.argsort(codes[:used], kind="mergesort")
    kept = 0
    out, best = np.empty(used, np.int64), np.empty(used)
    for i in order:
        if kept and out[kept - 1] == codes[i]:
            best[kept - 1] = max(best[kept - 1], weights[i])
        else:
            out[kept], best[kept] = codes[i], weights[i]
            kept += 1
    return out[:kept], best[:kept]


@njit(cache=True, nogil=True)
def pairs_of_cells(
    ptr: np.ndarray,
    gene: np.ndarray,
    pos: np.ndarray,
    seeds: np.ndarray,
    first: int,
    last: int,
    kind: int,
    radius: float,
    resolution: float,
    copies: int,
    num_genes: int,
    null: int,
    jitter: float,
    num_draws: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of some cells: how many each has over all draws, their codes and weights."""
    number = np.zeros(last - first, np.int64)
    codes, weights = np.empty(1024, np.int64), np.empty(1024)
    used = 0
    count = np.zeros(num_genes, np.int64)
    for cell in range(first, last):
        here, own = pos[ptr[cell] : ptr[cell + 1]], gene[ptr[cell] : ptr[cell + 1]]
        seed = seeds[cell]
        start, members = groups_of(here, kind, radius, resolution, seed)
        for draw in range(num_draws):
            labels = own
            key = mixed(seed + np.uint64(draw + 1) * STEP)
            if null == SHUFFLE:
                labels = own[permutation(len(own), key)]
            elif null == JITTER:
                moved, order = displaced(here, jitter, key)
                labels = own[order]
                start, members = groups_of(moved, kind, radius, resolution, key)
            found, weight = pairs_in(labels, start, members, copies, num_genes, count)
            if used + len(found) > len(codes):
                room = used + 2 * len(found)
                codes = np.concatenate((codes[:used], np.empty(room, np.int64)))
                weights = np.concatenate((weights[:used], np.empty(room)))
            codes[used : used + len(found)] = found
            weights[used : used + len(found)] = weight
            used += len(found)
            number[cell - first] += len(found)
    return number, codes[:used], weights[:used]
