"""The curriculum: segmentation, then the KL term, then the adversarial branch (method, sec. 4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from ruac.base.errors import RuacError


@dataclass
class Phase:
    """until: share of the training at which the phase ends. clean: weight of the segmentation
    loss on clean images. kl: beta. adversarial: gamma (0: the branch is not run)."""

    until: float = 1.0
    clean: float = 1.0
    kl: float = 0.0
    adversarial: float = 0.0


def paper_phases() -> list[Phase]:
    """Epochs 0-3, 4-5 and 6-19 of the paper's 20."""
    return [Phase(0.2, 1.0, 0.0, 0.0), Phase(0.3, 1.0, 0.05, 0.0), Phase(1.0, 0.8, 0.05, 0.2)]


@dataclass
class CurriculumConfig:
    phases: list[Phase] = field(default_factory=paper_phases)

    def validate(self) -> None:
        ends = [phase.until for phase in self.phases]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0 or ends[0] <= 0:
            raise RuacError(f"curriculum.phases: until is {ends}, expected rising shares that end with 1.0")
        for index, phase in enumerate(self.phases):
            for name in ("clean", "kl", "adversarial"):
                if getattr(phase, name) < 0:
                    raise RuacError(f"curriculum.phases[{index}].{name}: {getattr(phase, name)}, expected at least 0")
            if phase.clean == 0 and phase.adversarial == 0:
                raise RuacError(f"curriculum.phases[{index}]: clean and adversarial are both 0, nothing is trained")

    def at(self, progress: float) -> Phase:
        """The phase at `progress` in [0, 1)."""
        return next(phase for phase in self.phases if progress < phase.until)
