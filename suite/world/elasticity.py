"""Linear elasticity of straight dislocations: Stroh's sextic solution and the doubly periodic field in closed form.

Frame: line along e3, glide-plane normal e2. A single dislocation has u(x) = Re Σ_α A_α (L_α·b)/(πi) ln(x1 + p_α x2).
For a rectangular cell c1 x c2 the logarithm becomes ln θ1(π (z - z_core)/c1 | p_α c2/c1), which converges like a
Gaussian: no image sums and no conditional convergence. Sign: u(x2 -> core⁺) - u(x2 -> core⁻) = b for x1 < core.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from store.faults import FailedOutcome


class DegenerateElasticity(FailedOutcome, ValueError):
    """The elastic tensor is (too nearly) isotropic for Stroh's eigenvectors, or not positive definite."""


@dataclass(frozen=True)
class Stroh:
    """Stroh eigenpairs with Im p > 0, normalised 2 A_α·L_α = 1: p (3,), A and L (3, 3) with columns α."""

    p: np.ndarray
    A: np.ndarray
    L: np.ndarray


def rotate(tensor: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Components (3,)*4 of a fourth-order `tensor` (81 entries, crystal axes) in the orthonormal `frame` (rows e1, e2,
    e3)."""
    return np.einsum("ia,jb,kc,ld,abcd->ijkl", frame, frame, frame, frame, tensor.reshape((3,) * 4), optimize=True)


def stroh(c: np.ndarray) -> Stroh:
    """Solve the sextic eigenproblem for the elastic tensor `c`, (3, 3, 3, 3), in the dislocation frame.

    Raises `DegenerateElasticity` when `c` is not positive definite in the plane or the eigenvectors are defective.
    """
    q, r, t = c[:, 0, :, 0], c[:, 0, :, 1], c[:, 1, :, 1]
    if min(np.linalg.eigvalsh(q).min(), np.linalg.eigvalsh(t).min()) <= 0:
        raise DegenerateElasticity("the elastic tensor is not positive definite: the crystal is unstable")
    inverse = np.linalg.inv(t)
    n1, n2, n3 = -inverse @ r.T, inverse, r @ inverse @ r.T - q
    values, vectors = np.linalg.eig(np.block([[n1, n2], [n3, n1.T]]))
    keep = values.imag > 0
    if keep.sum() != 3:
        raise DegenerateElasticity(f"{keep.sum()} instead of 3 Stroh eigenvalues have Im p > 0")
    p, a, el = values[keep], vectors[:3, keep], vectors[3:, keep]
    scale = np.sqrt(2 * (a * el).sum(axis=0))
    a, el = a / scale, el / scale
    # completeness, 2 Re Σ A⊗L = I, fails exactly when eigenvectors coincide (isotropic solids)
    defect = np.abs(2 * (a @ el.T).real - np.eye(3)).max()
    if not defect < 1e-6:
        raise DegenerateElasticity(
            f"Stroh's eigenvectors are defective (2 Re Σ A⊗L differs from I by {defect:.1e}): the elastic tensor is "
            "isotropic; change one constant by 1e-4 of itself"
        )
    return Stroh(p, a, el)


@dataclass(frozen=True)
class Line:
    """A straight dislocation: its `frame` (rows e1, e2, e3 in crystal axes), Burgers vector (3,) in that frame, Å, and
    length t in the cell, Å."""

    frame: np.ndarray
    burgers: np.ndarray
    length: float

    def energy(self, c: np.ndarray) -> float:
        """t K(c) for `c` (81 entries) in the frame, eV; raises `DegenerateElasticity`."""
        return self.length * energy_factor(c, self.burgers)


def _log_theta(v: np.ndarray, tau: complex) -> np.ndarray:
    """ln θ1(v | tau) up to a constant, with the branch cut on Im v = 0, Re v < 0 (the glide plane)."""
    upper = v.imag >= 0
    sign = np.where(upper, 1, -1)
    w = np.exp(2j * sign * v)  # |w| <= 1
    result = sign * (0.5j * np.pi - 1j * v) + np.log1p(-w)
    q2 = np.exp(2j * np.pi * tau)
    power = q2
    while abs(power) * np.exp(2 * np.abs(v.imag).max()) > 1e-17:
        result += np.log1p(-power * w) + np.log1p(-power / w)
        power *= q2
    return result


def periodic_displacement(
    solution: Stroh, points: np.ndarray, cores: np.ndarray, burgers: np.ndarray, size: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement of a doubly periodic array of dislocations at mean stress zero, and the tilt of the cell.

    `points` (n, 2) inside one cell of `size` (c1, c2), `cores` (m, 2), `burgers` (m, 3); Å. Returns the displacement
    (n, 3) and the change (3,) of the second cell vector, Σ b x1/c1: the plastic strain of the cuts.
    Raises `ValueError` when the Burgers vectors do not sum to zero.
    """
    if np.abs(burgers.sum(axis=0)).max() > 1e-8 * np.abs(burgers).max():
        raise ValueError(f"the Burgers vectors of a periodic cell must sum to zero, not {burgers.sum(axis=0)}")
    c1, c2 = size
    displacement = np.zeros((len(points), 3))
    period2 = np.zeros(3)
    for p, a, el in zip(solution.p, solution.A.T, solution.L.T, strict=True):
        z = points[:, 0] + p * points[:, 1]
        for core, b in zip(cores, burgers, strict=True):
            z_core = core[0] + p * core[1]
            amplitude = a * (el @ b) / (1j * np.pi)
            log_theta = _log_theta(np.pi * (z - z_core) / c1, p * c2 / c1)
            displacement += np.real(log_theta[:, None] * amplitude)
            # ln θ1 grows by -2i v over one period of tau, up to constants that cancel with Σ b = 0
            period2 += np.real(amplitude * 2j * np.pi * z_core / c1)
    tilt = cores[:, 0] @ burgers / c1
    return displacement + points[:, 1:2] / c2 * (tilt - period2), tilt


def periodic_loop_displacement(
    c: np.ndarray, points: int, size: float, centre: np.ndarray, burgers: np.ndarray, radius: float, width: float
) -> tuple[np.ndarray, np.ndarray]:
    """Displacement of a periodic array of circular prismatic loops at mean stress zero, and the mean strain.

    A loop is a disc of `radius` across `burgers` (3,) and |b| thick, of uniform eigenstrain b⊗b/b² (positive: matter is
    put in; give the negative of the result for a vacancy loop), its faces softened by a Gaussian of standard deviation
    `width`. Anisotropic, exact in Fourier space: K(k) u(k) = -i (C : e*(k)) k with K = C_ijkl k_j k_l (Mura 1987,
    section 3). `c` (3, 3, 3, 3); cubic cell of `size` Å with `points` (even) grid points a side. Returns the
    displacement on the grid, (points,) * 3 + (3,), Å, mean strain included, and that strain (3, 3).
    """
    from scipy.fft import irfftn
    from scipy.special import j1

    thickness = float(np.linalg.norm(burgers))
    normal = burgers / thickness
    eigenstrain = np.outer(normal, normal)
    stress = np.einsum("ijkl,kl->ij", c, eigenstrain)
    fraction = np.pi * radius**2 * thickness / size**3
    full = 2 * np.pi * np.fft.fftfreq(points, size / points)
    half = 2 * np.pi * np.fft.rfftfreq(points, size / points)
    spectrum = np.empty((points, points, len(half), 3), dtype=complex)
    for index, k1 in enumerate(full):  # plane by plane: memory for millions of atoms
        k = np.stack(np.broadcast_arrays(k1, full[:, None], half), axis=-1)
        along = k @ normal
        across = np.sqrt(np.maximum((k**2).sum(axis=-1) - along**2, 0.0)) * radius
        shape = np.where(across > 1e-8, 2 * j1(across) / np.maximum(across, 1e-8), 1.0)
        shape *= np.sinc(along * thickness / (2 * np.pi)) * np.exp(-(k**2).sum(axis=-1) * width**2 / 2)
        acoustic = np.einsum("ijkl,...j,...l->...ik", c, k, k, optimize=True)
        if index == 0:
            acoustic[0, 0] = np.eye(3)  # no mean displacement
        source = fraction * (shape * np.exp(-1j * (k @ centre)))[..., None] * (k @ stress)
        spectrum[index] = -1j * np.linalg.solve(acoustic, source[..., None])[..., 0]
    strain = fraction * eigenstrain
    displacement = irfftn(spectrum, s=(points,) * 3, axes=(0, 1, 2), norm="forward", workers=-1)
    grid = np.arange(points) * size / points
    for axis in range(3):
        away = grid - centre[axis]
        displacement += away.reshape([-1 if a == axis else 1 for a in range(3)] + [1]) * strain[:, axis]
    return displacement, strain


def isotropic_screw(points: np.ndarray, b: float) -> np.ndarray:
    """u3 (n,) of a screw at the origin in an isotropic solid, b/2π times the angle from the cut x1 < 0; an oracle."""
    angle = np.arctan2(points[:, 1], points[:, 0])
    return b * angle / (2 * np.pi)


def energy_factor(c: np.ndarray, b: np.ndarray) -> float:
    """Prelogarithmic energy factor K with W = K ln(R/r) per unit length, eV/Å, for `c` (81 entries) in the frame.

    K = b·B b, B the mean over angles φ of [(mm) - (mn)(nn)⁻¹(nm)]/4π with (mn)_ik = m_j c_ijkl n_l and orthogonal unit
    vectors m, n in the plane, n at the angle φ (Barnett and Lothe 1973; Hirth and Lothe, chapter 13). It needs no
    eigenvectors, so that isotropic solids are no exception.
    Raises `DegenerateElasticity` when some (nn) is not positive definite: K falls without bound as `c` comes near that.
    """
    c = c.reshape((3,) * 4)
    plane = np.stack([c[:, 0, :, 0], c[:, 0, :, 1], c[:, 1, :, 0], c[:, 1, :, 1]])
    nn, nm, mm = np.tensordot(_turning_plane(), plane, 1)
    if not np.linalg.eigvalsh((nn + nn.transpose(0, 2, 1)) / 2).min() > 0:
        raise DegenerateElasticity("the elastic tensor is not positive definite: the crystal is unstable")
    pulled = nm @ b
    relaxed = (pulled * np.linalg.solve(nn, pulled[..., None])[..., 0]).sum(axis=1).mean()
    return float((b @ mm.mean(axis=0) @ b - relaxed) / (4 * np.pi))


@cache
def _turning_plane() -> np.ndarray:
    """Products of components (11, 12, 21, 22) of (nn), (nm), (mm) over half a turn, (3, 64, 4): a trapezoidal rule for
    a function of period π converges exponentially."""
    angle = np.pi * np.arange(64) / 64
    n = np.stack([np.cos(angle), np.sin(angle)])
    m = np.stack([np.sin(angle), -np.cos(angle)])
    return np.stack([np.einsum("js,ls->sjl", u, v).reshape(-1, 4) for u, v in ((n, n), (n, m), (m, m))])


def strain_factor(solution: Stroh, b: np.ndarray) -> float:
    """κ² with ∫_{r<|x|<R} |∇u|² = κ² ln(R/r) for a single dislocation, Å² (∇u is κ-homogeneous of degree -1)."""
    return _around(_gradient_on_circle(solution, b))


def field_change(ours: Stroh, theirs: Stroh, b: np.ndarray) -> float:
    """∮|∇u - ∇u'|² dθ of the fields of the dislocation `b` (3,) in two crystals, Å²: ∫_{r<|x|<R} |∇u - ∇u'|² is this
    times ln(R/r). It is zero where one crystal is stiffer than the other by a factor."""
    return _around(_gradient_on_circle(ours, b) - _gradient_on_circle(theirs, b))


def _gradient_on_circle(solution: Stroh, b: np.ndarray) -> np.ndarray:
    """∂_j u_k of a straight dislocation on the unit circle, (2, 3, samples), [j, k], dimensionless for |x| in Å."""
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    x1, x2 = np.cos(angle), np.sin(angle)
    gradient = np.zeros((2, 3, len(angle)))
    for p, a, el in zip(solution.p, solution.A.T, solution.L.T, strict=True):
        derivative = (el @ b) / (1j * np.pi) / (x1 + p * x2)
        gradient[0] += np.real(a[:, None] * derivative)
        gradient[1] += np.real(a[:, None] * p * derivative)
    return gradient


def _around(gradient: np.ndarray) -> float:
    return float((gradient**2).sum(axis=(0, 1)).mean() * 2 * np.pi)


def felt_form(solution: Stroh, b: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """The part of an elastic error that a dislocation feels, as a linear form, (k, 81).

    For an error ΔC' of the `crystal.stress_strain_coefficients` (81 entries, crystal axes), |form @ ΔC'| is the dual
    norm of the force div(ΔC' β) that it exerts in the elastic field β of the dislocation `b` (3,), over the norm of
    that field, eV/Å^3. It is zero for a multiple of C itself, and never larger than |ΔC'|. `frame`: rows e1, e2, e3 in
    crystal axes.

    β decays as 1/r, so that the force is g(θ)/r² away from the core, with Fourier components g_m; -Δφ = g/r² has
    φ_m = g_m/m², and ∫|∇φ|² and ∫|β|² grow as log r (Assumption 2.1 and the proof of Theorem 3.1). There is no g_0: the
    stress ΔC' β carries the same force F0 = ∮ ΔC' β n dθ through every circle. It acts on the core itself, as F0 δ(x);
    -Δφ = F0 δ has φ = -F0 ln(r)/2π, and ∫|∇φ|² = |F0|²/2π log r beside the other modes. By symmetry F0 is zero for
    screws in cubic crystals; of an edge in W it makes a third of the square for C44, and half of it for the bulk
    modulus.
    """
    samples = 256
    angle = 2 * np.pi * np.arange(samples) / samples
    x1, x2 = np.cos(angle), np.sin(angle)
    normal = np.stack([x1, x2, 0 * x1])
    flux = np.zeros((3, 3, 3))  # mean over θ of n_j ∂_l u_k on the unit circle, [k, j, l]
    curvature = np.zeros((3, 3, 3, samples))  # ∂_j ∂_l u_k on the unit circle, [k, j, l]
    for p, a, el in zip(solution.p, solution.A.T, solution.L.T, strict=True):
        direction = np.array([1.0, p, 0.0])
        first = (el @ b) / (1j * np.pi) / (x1 + p * x2)
        flux += np.real(np.einsum("k,js,l,s->kjl", a, normal, direction, first)) / samples
        curvature += np.real(np.einsum("k,j,l,s->kjls", a, direction, direction, -first / (x1 + p * x2)))
    modes = np.fft.rfft(curvature, axis=-1)[..., 1:-1] / samples / np.arange(1, samples // 2)
    parts = [
        np.sqrt(4 * np.pi) * modes.real,  # both signs of m, ∫dθ
        np.sqrt(4 * np.pi) * modes.imag,
        np.sqrt(2 * np.pi) * flux[..., None],  # |F0|²/2π with F0 = 2π times the mean
    ]
    # in crystal axes: the force of a unit error (i, j, k, l) is along e_i
    columns = np.einsum("ka,jb,lc,kjls->abcs", frame, frame, frame, np.concatenate(parts, axis=-1), optimize=True)
    forces = np.einsum("ip,kjls->psijkl", np.eye(3), columns).reshape(3 * columns.shape[-1], 81)
    return forces / np.sqrt(strain_factor(solution, b))
